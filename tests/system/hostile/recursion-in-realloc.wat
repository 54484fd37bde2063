;; `cabi_realloc` calls itself for ever when it is asked for the room for the evil record.
;; expect: fails: call stack exhausted

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (if (i32.gt_u (local.get $size) (i32.const 4000)) (then
    (return (i32.add (i32.const 8)
      (call $realloc (local.get $old) (local.get $old-size) (local.get $align) (local.get $size))))))
  (call $allocate (local.get $align) (local.get $size)))
