;; Its needs are behind its memory.
;; expect: refused: pointer out of bounds of memory

(func $configure (param $config i32) (param $length i32) (result i32) (i32.const 0x7ffffff0))
