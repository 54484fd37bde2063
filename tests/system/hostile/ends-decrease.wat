;; The ends of its values go backwards.
;; expect: fails: its answer is malformed: values: ends decrease

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=0 (global.get $ends) (i32.const 2))
  (i32.store offset=4 (global.get $ends) (i32.const 1))
  (global.get $answer))
