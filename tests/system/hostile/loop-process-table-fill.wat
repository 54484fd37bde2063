;; Fills a table of 900,000 elements for ever.
;; expect: fails: it missed its deadline
;; limit: time

(table $table 900000 funcref)
(func $evil (param $batch i32) (result i32)
  (loop $again
    (table.fill $table (i32.const 0) (ref.null func) (i32.const 900000))
    (br $again))
  (unreachable))
