;; Exports something under the right name, which has only one of the functions, and that of another type.
;; expect: refused: does not have export `describe`

(component
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
