;; The answer is at an odd address.
;; expect: fails: return pointer not aligned

(func $evil (param $batch i32) (result i32)
  (i32.add (call $pass (local.get $batch)) (i32.const 1)))
