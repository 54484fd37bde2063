;; Logs when the host has read its answer: it can't be called then.
;; expect: fails: cannot leave component instance

(global $is-evil (mut i32) (i32.const 0))
(func $post-process (param $answer i32)
  (if (global.get $is-evil) (then (call $log (i32.const 2) (global.get $text) (i32.const 0))))
  (global.set $heap (i32.const 65536)))
(func $evil (param $batch i32) (result i32)
  (global.set $is-evil (i32.const 1))
  (call $pass (local.get $batch)))
