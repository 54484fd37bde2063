;; The answer is behind its memory.
;; expect: fails: pointer out of bounds of memory

(func $evil (param $batch i32) (result i32)
  (i32.const 0x7ffffff0))
