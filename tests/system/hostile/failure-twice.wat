;; The same record failed twice.
;; expect: fails: two failures of one record

(func $evil (param $batch i32) (result i32)
  (call $fail (global.get $text) (i32.const 2)))
