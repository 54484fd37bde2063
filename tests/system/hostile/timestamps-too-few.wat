;; Two records, and no timestamp.
;; expect: fails: its answer is malformed: output on port "": 2 origins, but 0 timestamps

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=72 (global.get $output) (i32.const 1))
  (global.get $answer))
