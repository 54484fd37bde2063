;; Traps once its answer has been read.
;; expect: fails: unreachable

(global $is-evil (mut i32) (i32.const 0))
(func $post-process (param $answer i32)
  (if (global.get $is-evil) (then (unreachable)))
  (global.set $heap (i32.const 65536)))
(func $evil (param $batch i32) (result i32)
  (global.set $is-evil (i32.const 1))
  (call $pass (local.get $batch)))
