;; The same with all that the largest memory by default has. (A fill of 190 MiB takes as long as it takes: the deadline is looked at
;; before and after.)
;; expect: fails: it missed its deadline
;; limit: time
;; limits: time = "100ms"

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 3050)))
  (loop $again
    (memory.fill (i32.const 131072) (i32.const 1) (i32.const 0xbe00000))
    (br $again))
  (unreachable))
