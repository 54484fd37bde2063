;; `cabi_realloc` never returns when the host asks for the room for the evil record.
;; expect: fails: it missed its deadline
;; limit: time

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (if (i32.gt_u (local.get $size) (i32.const 4000)) (then
    (loop $for-ever (br $for-ever))))
  (call $allocate (local.get $align) (local.get $size)))
