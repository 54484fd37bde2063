;; Wants an interface in the contract's name that it hasn't.
;; expect: refused: millstream:plugin/network@0.1.0

(component
  (import "millstream:plugin/network@0.1.0" (instance (export "connect" (func))))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
