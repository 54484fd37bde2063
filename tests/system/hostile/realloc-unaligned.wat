;; Gives room at odd addresses for lists of integers.
;; expect: all fail: realloc return: result not aligned

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (i32.add (call $allocate (local.get $align) (i32.add (local.get $size) (i32.const 8)))
    (i32.gt_u (local.get $align) (i32.const 1))))
