;; Nulls are listed backwards.
;; expect: fails: its answer is malformed: values: nulls do not ascend

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=0 (global.get $text) (i32.const 1))
  (i32.store offset=4 (global.get $text) (i32.const 0))
  (i32.store offset=64 (global.get $output) (global.get $text))
  (i32.store offset=68 (global.get $output) (i32.const 2))
  (global.get $answer))
