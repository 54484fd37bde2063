;; Logs a text that ends behind its memory.
;; expect: fails: string pointer/length out of bounds of memory

(func $evil (param $batch i32) (result i32)
  (call $log (i32.const 2) (global.get $text) (i32.const 0x7fffffff))
  (unreachable))
