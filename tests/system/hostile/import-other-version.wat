;; Wants an interface of another version of the contract.
;; expect: refused: it imports millstream:plugin/log@0.2.0, which plugins are not given

(component
  (import "millstream:plugin/log@0.2.0" (instance (export "log" (func (param "message" string)))))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
