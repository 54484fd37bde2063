;; A component that exports nothing.
;; expect: refused: it is a component that exports nothing

(component
)
