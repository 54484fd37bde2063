;; Keys, values and their ends lie over each other in memory, and over the origins: they are sound all the same, and copied.
;; expect: passes

(func $evil (param $batch i32) (result i32)
  ;; One address for all: 0, 1 as origins and ends is 0, 1 and one byte long.
  (if (i32.ne (call $records (local.get $batch)) (i32.const 1)) (then (unreachable)))
  (drop (call $keep (global.get $origins) (i32.const 1)))
  (i32.store (global.get $origins) (i32.const 0))
  (call $set-column (i32.add (global.get $output) (i32.const 16)))
  (i32.store offset=20 (global.get $output) (global.get $origins))
  (i32.store offset=24 (global.get $output) (i32.const 0))
  (i32.store offset=28 (global.get $output) (global.get $origins))
  (i32.store offset=32 (global.get $output) (i32.const 1))
  (memory.copy (i32.add (global.get $output) (i32.const 44)) (i32.add (global.get $output) (i32.const 16)) (i32.const 28))
  (global.get $answer))
