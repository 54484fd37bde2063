;; Writes a line of four megabytes: it is cut into several, and the first of them are written.
;; expect: passes
;; more: plugins.{case}.allow = { stdout = true }

(import "wasi:cli/stdout@0.2.0" "get-stdout" (func $stdout (result i32)))
(import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))

(func $evil (param $batch i32) (result i32)
  (local $out i32)
  (local $left i32)
  (local.set $out (call $stdout))
  (local.set $left (i32.const 1000))
  (memory.fill (global.get $text) (i32.const 65) (i32.const 4000))
  (loop $again
    (call $write (local.get $out) (global.get $text) (i32.const 4000) (global.get $told))
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $again (local.get $left)))
  (call $pass (local.get $batch)))
