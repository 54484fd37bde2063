;; A failure whose reason is no text.
;; expect: fails: invalid utf-8

(data (i32.const 2060) "\c3\28")
(func $evil (param $batch i32) (result i32)
  (i32.store offset=4 (global.get $text) (i32.const 2060))
  (i32.store offset=8 (global.get $text) (i32.const 2))
  (call $fail (global.get $text) (i32.const 1)))
