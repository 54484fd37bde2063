;; Looks up by the handle 0, which is never given.
;; expect: fails: unknown handle index 0

(func $evil (param $batch i32) (result i32)
  (call $lookup-get (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $told))
  (unreachable))
