;; Waits until a clock has come to the end of time, which the host does for it.
;; expect: fails: it missed its deadline
;; limit: time

(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))
(import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))

(func $evil (param $batch i32) (result i32)
  (call $block (call $subscribe (i64.const -1)))
  (unreachable))
