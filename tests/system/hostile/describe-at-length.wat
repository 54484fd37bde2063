;; Has a name and a version of 15 MB each: they are cut.
;; expect: passes

(memory $memory 480)
(func $describe (result i32)
  (memory.fill (i32.const 131072) (i32.const 120) (i32.const 30000000))
  (i32.store offset=0 (global.get $description) (i32.const 131072))
  (i32.store offset=4 (global.get $description) (i32.const 15000000))
  (i32.store offset=8 (global.get $description) (i32.const 15131072))
  (i32.store offset=12 (global.get $description) (i32.const 14000000))
  (global.get $description))
