;; Logs a line of 30 MB: it is cut.
;; expect: passes

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 480)))
  (memory.fill (i32.const 131072) (i32.const 121) (i32.const 30000000))
  (call $log (i32.const 3) (i32.const 131072) (i32.const 30000000))
  (call $pass (local.get $batch)))
