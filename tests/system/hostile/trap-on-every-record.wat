;; Traps whatever it is given.
;; expect: all fail: unreachable

(func $process (param $batch i32) (result i32) (unreachable))
