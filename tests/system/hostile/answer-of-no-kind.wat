;; The answer is neither an outcome nor an error.
;; expect: fails: invalid expected discriminant

(func $evil (param $batch i32) (result i32)
  (drop (call $pass (local.get $batch)))
  (i32.store8 (global.get $answer) (i32.const 7))
  (global.get $answer))
