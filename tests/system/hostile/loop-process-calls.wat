;; A tree of calls 60 deep, 2^60 in all.
;; expect: fails: it missed its deadline
;; limit: time

(func $branch (param $depth i32)
  (if (local.get $depth) (then
    (call $branch (i32.sub (local.get $depth) (i32.const 1)))
    (call $branch (i32.sub (local.get $depth) (i32.const 1))))))
(func $evil (param $batch i32) (result i32)
  (call $branch (i32.const 60))
  (call $pass (local.get $batch)))
