;; Grows a table until it isn't given more, and traps.
;; expect: fails: unreachable

(table $table 1 funcref)
(func $evil (param $batch i32) (result i32)
  (loop $more
    (br_if $more (i32.ne (table.grow $table (ref.null func) (i32.const 4096)) (i32.const -1))))
  (unreachable))
