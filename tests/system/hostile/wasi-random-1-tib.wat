;; Asks for more random bytes than the host has memory.
;; expect: fails: exceeds limit

(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))

(func $evil (param $batch i32) (result i32)
  (call $random (i64.const 1099511627776) (global.get $told))
  (unreachable))
