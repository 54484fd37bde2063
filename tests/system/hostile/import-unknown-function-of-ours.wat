;; Wants a function that an interface of the contract hasn't.
;; expect: refused: millstream:plugin/log@0.1.0

(component
  (import "millstream:plugin/log@0.1.0" (instance (export "erase" (func))))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
