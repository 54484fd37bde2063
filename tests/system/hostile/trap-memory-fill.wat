;; Fills memory that it hasn't.
;; expect: fails: out of bounds memory access

(func $evil (param $batch i32) (result i32)
  (memory.fill (i32.const 0) (i32.const 1) (i32.const 0xffffffff))
  (unreachable))
