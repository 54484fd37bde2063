;; Ends the process, as it thinks.
;; expect: fails: Exited with i32 exit status 0

(import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))

(func $evil (param $batch i32) (result i32)
  (call $exit (i32.const 0))
  (unreachable))
