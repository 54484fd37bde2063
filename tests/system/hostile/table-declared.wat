;; Declares a table of ten million elements.
;; expect: refused: exceeds table limits

(table $table 10000000 funcref)
