;; Traps before anybody has called it.
;; expect: refused: unreachable

(func $start (unreachable))
(start $start)
