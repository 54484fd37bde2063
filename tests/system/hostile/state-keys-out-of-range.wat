;; Asks for keys that end behind its memory.
;; expect: fails: list pointer/length out of bounds of memory
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $evil (param $batch i32) (result i32)
  (local $handle i32)
  (call $state-open (global.get $text) (i32.const 4) (global.get $told))
  (local.set $handle (i32.load offset=4 (global.get $told)))
  (call $state-get (local.get $handle) (i32.const 65536) (i32.const 0x7fffffff) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (global.get $told))
  (unreachable))
