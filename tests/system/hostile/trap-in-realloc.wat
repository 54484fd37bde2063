;; `cabi_realloc` traps when it is asked for the room for the evil record.
;; expect: fails: unreachable

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (if (i32.gt_u (local.get $size) (i32.const 4000)) (then (unreachable)))
  (call $allocate (local.get $align) (local.get $size)))
