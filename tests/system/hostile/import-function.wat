;; Wants a bare function.
;; expect: refused: it imports system, which plugins are not given

(component
  (import "system" (func (param "command" string)))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
