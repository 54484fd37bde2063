;; Calls what its table hasn't.
;; expect: fails: undefined element

(type $step (func (result i32)))
(table $steps 1 funcref)
(func $evil (param $batch i32) (result i32)
  (call_indirect $steps (type $step) (i32.const 5)))
