;; Looks for folders: one would make it trap.
;; expect: passes
;; more: plugins.{case}.allow = { stubs = ["filesystem"] }

(import "wasi:filesystem/preopens@0.2.0" "get-directories" (func $folders (param i32)))

(func $evil (param $batch i32) (result i32)
  (call $folders (global.get $told))
  (if (i32.load offset=4 (global.get $told)) (then (unreachable)))
  (call $pass (local.get $batch)))
