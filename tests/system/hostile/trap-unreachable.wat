;; Reaches what it says can't be reached: what Rust's panics and C's abort() come to.
;; expect: fails: unreachable

(func $evil (param $batch i32) (result i32)
  (unreachable))
