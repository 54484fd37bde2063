;; A value is null that there isn't.
;; expect: fails: its answer is malformed: values: null 4294967295 is out of range of 2 strings

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store (global.get $text) (i32.const -1))
  (i32.store offset=64 (global.get $output) (global.get $text))
  (i32.store offset=68 (global.get $output) (i32.const 1))
  (global.get $answer))
