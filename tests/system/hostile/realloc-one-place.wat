;; Has the host put all of the evil record, and of its batch, into one place: what it reads then is its own affair.
;; expect: fails: unreachable

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (if (i32.gt_u (local.get $size) (i32.const 4000)) (then
    (return (i32.const 65536))))
  (call $allocate (local.get $align) (local.get $size)))
