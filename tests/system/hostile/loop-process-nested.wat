;; Loops in loops, which count to 2^48: none of them is endless.
;; expect: fails: it missed its deadline
;; limit: time

(func $evil (param $batch i32) (result i32)
  (local $outer i32)
  (local $inner i64)
  (loop $again
    (local.set $inner (i64.const 0))
    (loop $count
      (local.set $inner (i64.add (local.get $inner) (i64.const 1)))
      (br_if $count (i64.lt_u (local.get $inner) (i64.const 0x100000000))))
    (local.set $outer (i32.add (local.get $outer) (i32.const 1)))
    (br_if $again (i32.lt_u (local.get $outer) (i32.const 0x10000))))
  (call $pass (local.get $batch)))
