;; Reads where it has no memory.
;; expect: fails: out of bounds memory access

(func $evil (param $batch i32) (result i32)
  (i32.load (i32.const 0xfffffffc)))
