;; Looks up by the handle of its state.
;; expect: fails: handle
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $evil (param $batch i32) (result i32)
  (call $state-open (global.get $text) (i32.const 4) (global.get $told))
  (call $lookup-get (i32.load offset=4 (global.get $told))
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $told))
  (unreachable))
