;; Wants a function of the contract with another type.
;; expect: refused: millstream:plugin/log@0.1.0

(component
  (import "millstream:plugin/log@0.1.0" (instance (export "log" (func (param "message" (list u8))))))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
