;; Exports one function instead of an interface.
;; expect: refused: is not a plugin

(component
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (export "process" (func $f)))
