;; `process` never returns.
;; expect: fails: it missed its deadline
;; limit: time

(func $evil (param $batch i32) (result i32)
  (loop $for-ever (br $for-ever))
  (unreachable))
