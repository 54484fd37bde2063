;; `cabi_realloc` never returns while a host function, which `process` has called, waits to hand over its answer.
;; expect: fails: it missed its deadline
;; limit: time

(global $is-evil (mut i32) (i32.const 0))
(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (if (global.get $is-evil) (then
    (loop $for-ever (br $for-ever))))
  (call $allocate (local.get $align) (local.get $size)))
(func $evil (param $batch i32) (result i32)
  (global.set $is-evil (i32.const 1))
  (call $lookup-open (global.get $text) (i32.const 8) (global.get $told))
  (unreachable))
