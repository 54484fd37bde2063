;; A list that ends behind its memory.
;; expect: fails: list pointer/length out of bounds of memory

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=8 (global.get $output) (i32.const 65536))
  (i32.store offset=12 (global.get $output) (i32.const 0x10000000))
  (global.get $answer))
