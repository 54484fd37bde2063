;; The origins lie over the answer that names them, and are what happens to stand there.
;; expect: fails: its answer is malformed: output on port "": origins decrease

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=8 (global.get $output) (global.get $output))
  (i32.store offset=12 (global.get $output) (i32.const 8))
  (global.get $answer))
