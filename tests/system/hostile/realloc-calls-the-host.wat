;; `cabi_realloc` logs: while the host hands something over it can't be called.
;; expect: fails: cannot leave component instance

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (if (i32.gt_u (local.get $size) (i32.const 4000)) (then
    (call $log (i32.const 2) (global.get $text) (i32.const 0))))
  (call $allocate (local.get $align) (local.get $size)))
