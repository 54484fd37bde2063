;; Calls itself for ever.
;; expect: fails: call stack exhausted

(func $deeper (param $n i32) (result i32)
  (i32.add (call $deeper (local.get $n)) (i32.const 1)))
(func $evil (param $batch i32) (result i32)
  (call $deeper (i32.const 0)))
