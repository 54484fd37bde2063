;; Writes lines to its standard output for ever: they are log lines, and so many are written.
;; expect: fails: it missed its deadline
;; limit: time
;; more: plugins.{case}.allow = { stdout = true }

(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
(import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))

(func $evil (param $batch i32) (result i32)
  (local $out i32)
  (local.set $out (call $stdout))
  (memory.fill (global.get $text) (i32.const 10) (i32.const 4000))
  (i32.store (global.get $text) (i32.const 0x0a212121))
  (loop $again
    (call $write (local.get $out) (global.get $text) (i32.const 4000) (global.get $told))
    (br $again))
  (unreachable))
