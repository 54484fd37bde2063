;; A record failed that the batch hasn't.
;; expect: fails: a failure's origin is out of range of

(func $evil (param $batch i32) (result i32)
  (i32.store (global.get $text) (i32.const -1))
  (call $fail (global.get $text) (i32.const 1)))
