;; Has the host put the configuration where it has no memory.
;; expect: refused: realloc return: beyond end of memory

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (i32.const 0x7fffffff))
