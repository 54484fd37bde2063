;; Calls a function as if it were of another type.
;; expect: fails: indirect call type mismatch

(type $step (func (param i64) (result i32)))
(table $steps funcref (elem $records))
(func $evil (param $batch i32) (result i32)
  (call_indirect $steps (type $step) (i64.const 0) (i32.const 0)))
