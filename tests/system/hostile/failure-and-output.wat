;; The same record failed, and came out.
;; expect: fails: is both a failure and the origin of an output record

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=12 (global.get $answer) (global.get $text))
  (i32.store offset=16 (global.get $answer) (i32.const 1))
  (global.get $answer))
