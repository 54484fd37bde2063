;; Headers of the second record before those of the first.
;; expect: fails: its answer is malformed: headers: owners decrease

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=84 (global.get $output) (i32.const 1))
  (i32.store offset=96 (global.get $output) (global.get $bytes))
  (call $set-column (i32.add (global.get $output) (i32.const 116)))
  (call $set-column (i32.add (global.get $output) (i32.const 92)))
  (i32.store offset=116 (global.get $output) (i32.const 0))
  (i32.store offset=88 (global.get $output) (global.get $origins))
  (i32.store offset=92 (global.get $output) (i32.const 2))

  (i32.store offset=0 (global.get $text) (i32.const 1))
  (i32.store offset=4 (global.get $text) (i32.const 0))
  (i32.store offset=88 (global.get $output) (global.get $text))
  (global.get $answer))
