;; Three tables of 400,000 elements each.
;; expect: refused: exceeds table limits

(table $a 400000 funcref)
(table $b 400000 funcref)
(table $c 400000 funcref)
