;; Two functions that call each other for ever, through a table.
;; expect: fails: call stack exhausted

(type $step (func (result i32)))
(table $steps funcref (elem $left $right))
(func $left (result i32) (i32.add (call_indirect $steps (type $step) (i32.const 1)) (i32.const 1)))
(func $right (result i32) (i32.add (call_indirect $steps (type $step) (i32.const 0)) (i32.const 1)))
(func $evil (param $batch i32) (result i32)
  (call $left))
