;; A failure whose reason has 30 MB: it is cut.
;; expect: refuses: yyy

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 480)))
  (if (i32.ne (call $records (local.get $batch)) (i32.const 1)) (then (unreachable)))
  (memory.fill (i32.const 131072) (i32.const 121) (i32.const 30000000))
  (i32.store offset=4 (global.get $text) (i32.const 131072))
  (i32.store offset=8 (global.get $text) (i32.const 30000000))
  (call $fail (global.get $text) (i32.const 1)))
