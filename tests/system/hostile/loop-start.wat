;; The module's start function never returns.
;; expect: refused: it missed its deadline

(func $start (loop $for-ever (br $for-ever)))
(start $start)
