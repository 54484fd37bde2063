;; Two outputs leave by the default port.
;; expect: fails: its answer is malformed: two outputs on port ""

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (memory.copy (i32.add (global.get $output) (i32.const 144)) (global.get $output) (i32.const 144))
  (i32.store offset=8 (global.get $answer) (i32.const 2))
  (global.get $answer))
