;; Leaves by a port with a name that is no text.
;; expect: fails: invalid utf-8

(data (i32.const 2048) "p\ff")
(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=0 (global.get $output) (global.get $text))
  (i32.store offset=4 (global.get $output) (i32.const 2))
  (global.get $answer))
