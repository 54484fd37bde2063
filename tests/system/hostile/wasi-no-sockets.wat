;; Makes a socket: if it gets one, or is refused for another reason than that access is denied, it traps.
;; expect: passes
;; more: plugins.{case}.allow = { stubs = ["sockets"] }

(import "wasi:sockets/tcp-create-socket@0.2.0" "create-tcp-socket" (func $socket (param i32 i32)))

(func $evil (param $batch i32) (result i32)
  (call $socket (i32.const 0) (global.get $told))
  (if (i32.ne (i32.load8_u (global.get $told)) (i32.const 1)) (then (unreachable)))
  (if (i32.ne (i32.load8_u offset=4 (global.get $told)) (i32.const 1)) (then (unreachable)))
  (call $pass (local.get $batch)))
