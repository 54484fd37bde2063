;; Traps in `describe`.
;; expect: refused: can't say what it is

(func $describe (result i32) (unreachable))
