;; Looks up by a handle that nobody gave to it.
;; expect: fails: unknown handle index 12345

(func $evil (param $batch i32) (result i32)
  (call $lookup-get (i32.const 12345) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $told))
  (unreachable))
