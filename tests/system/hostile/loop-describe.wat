;; `describe` never returns.
;; expect: refused: can't say what it is: it missed its deadline

(func $describe (result i32)
  (loop $for-ever (br $for-ever))
  (unreachable))
