;; The answer begins in its memory, and ends behind it.
;; expect: fails: pointer out of bounds of memory

(func $evil (param $batch i32) (result i32)
  (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 4)))
