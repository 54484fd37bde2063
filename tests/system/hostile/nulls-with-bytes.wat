;; A value is null, and has a byte.
;; expect: fails: its answer is malformed: values: null 1 has bytes

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store (global.get $text) (i32.const 1))
  (i32.store offset=64 (global.get $output) (global.get $text))
  (i32.store offset=68 (global.get $output) (i32.const 1))
  (global.get $answer))
