;; Logs a line of a megabyte for ever: each time the host copies it, and looks whether it is UTF-8.
;; expect: fails: it missed its deadline
;; limit: time
;; limits: time = "100ms", output-bytes = "1MiB"

(memory $memory 32)
(func $evil (param $batch i32) (result i32)
  (loop $again
    (call $log (i32.const 2) (i32.const 0x100000) (i32.const 1000000))
    (br $again))
  (unreachable))
