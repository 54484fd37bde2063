;; Two records, and one value.
;; expect: fails: its answer is malformed: output on port "": 2 origins, but 1 values

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=0 (global.get $ends) (i32.const 2))
  (i32.store offset=60 (global.get $output) (i32.const 1))
  (global.get $answer))
