;; A memory shared between threads, which no limit would hold.
;; expect: refused: threads must be enabled

(memory $shared 1 65536 shared)
