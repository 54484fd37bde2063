;; Origins go backwards.
;; expect: fails: its answer is malformed: output on port "": origins decrease

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=0 (global.get $origins) (i32.const 1))
  (global.get $answer))
