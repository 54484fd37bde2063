;; Declares a memory of 4 GiB.
;; expect: refused: exceeds memory limits

(memory $memory 65536)
