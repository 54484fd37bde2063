;; Wants a core module.
;; expect: refused: it imports code, which plugins are not given

(component
  (import "code" (core module))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
