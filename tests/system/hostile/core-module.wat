;; A core module as it is, not a component.
;; expect: refused: it is a core module, not a component

(module (func (export "process")))
