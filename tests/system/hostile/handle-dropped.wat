;; Uses a handle that it has dropped.
;; expect: fails: unknown handle index
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $evil (param $batch i32) (result i32)
  (local $handle i32)
  (call $state-open (global.get $text) (i32.const 4) (global.get $told))
  (local.set $handle (i32.load offset=4 (global.get $told)))
  (call $state-drop (local.get $handle))
  (call $state-get (local.get $handle) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $told))
  (unreachable))
