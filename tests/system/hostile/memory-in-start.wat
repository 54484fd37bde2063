;; Grows its memory to the limit before anybody has called it.
;; expect: refused: each batch would take a new instance

(func $start
  (loop $more
    (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))))
(start $start)
