;; Has the host put the evil record over the end of its memory.
;; expect: fails: realloc return: beyond end of memory

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (if (i32.gt_u (local.get $size) (i32.const 4000)) (then
    (return (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 16)))))
  (call $allocate (local.get $align) (local.get $size)))
