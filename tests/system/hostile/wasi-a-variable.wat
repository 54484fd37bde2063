;; Reads the environment, of which it is given one variable: with more, or none, it would trap.
;; expect: passes
;; more: plugins.{case}.allow = { env = ["PATH"] }

(import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))

(func $evil (param $batch i32) (result i32)
  (call $environment (global.get $told))
  (if (i32.ne (i32.load offset=4 (global.get $told)) (i32.const 1)) (then (unreachable)))
  (call $pass (local.get $batch)))
