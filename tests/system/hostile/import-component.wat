;; Wants another component.
;; expect: refused: root-level component imports are not supported

(component
  (import "other" (component))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
