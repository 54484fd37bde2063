;; Has the host put the evil record where it has no memory.
;; expect: fails: realloc return: beyond end of memory

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (if (i32.gt_u (local.get $size) (i32.const 4000)) (then
    (return (i32.const 0x7ffffff0))))
  (call $allocate (local.get $align) (local.get $size)))
