;; Waits for ever in naps of a millisecond, each in the host.
;; expect: fails: it missed its deadline
;; limit: time

(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))
(import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
(import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop (param i32)))

(func $evil (param $batch i32) (result i32)
  (local $nap i32)
  (loop $again
    (local.set $nap (call $subscribe (i64.const 1000000)))
    (call $block (local.get $nap))
    (call $drop (local.get $nap))
    (br $again))
  (unreachable))
