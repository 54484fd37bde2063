;; Has the host keep more and more things to wait for.
;; expect: fails: resource table has no free keys

(import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))

(func $evil (param $batch i32) (result i32)
  (loop $again
    (drop (call $subscribe (i64.const -1)))
    (br $again))
  (unreachable))
