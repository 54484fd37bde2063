;; Begins with data behind its memory.
;; expect: refused: out of bounds memory access

(data (i32.const 300000) "there")
