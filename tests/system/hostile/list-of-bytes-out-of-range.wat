;; Bytes that end behind its memory.
;; expect: fails: list pointer/length out of bounds of memory

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=52 (global.get $output) (i32.const 0x3000000))
  (global.get $answer))
