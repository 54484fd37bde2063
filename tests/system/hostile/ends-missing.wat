;; There are bytes, but no ends.
;; expect: fails: its answer is malformed: values: the last end is 0, but there are 2 bytes

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=60 (global.get $output) (i32.const 0))
  (global.get $answer))
