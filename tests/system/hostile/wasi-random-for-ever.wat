;; Asks for a megabyte of random bytes for ever.
;; expect: fails: it missed its deadline
;; limit: time

(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))

(func $evil (param $batch i32) (result i32)
  (loop $again
    (global.set $heap (i32.const 65536))
    (call $random (i64.const 1048576) (global.get $told))
    (br $again))
  (unreachable))
