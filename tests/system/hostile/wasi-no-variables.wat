;; Reads the environment, of which it is given nothing: one variable more, and it would trap.
;; expect: passes
;; more: plugins.{case}.allow = { stubs = ["environment"] }

(import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))

(func $evil (param $batch i32) (result i32)
  (call $environment (global.get $told))
  (if (i32.load offset=4 (global.get $told)) (then (unreachable)))
  (call $pass (local.get $batch)))
