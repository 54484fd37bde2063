;; `process` never returns, whatever it is given.
;; expect: all fail: it missed its deadline
;; limit: time

(func $process (param $batch i32) (result i32)
  (loop $for-ever (br $for-ever))
  (unreachable))
