;; A thousand failures that all have the same megabyte as their reason.
;; expect: fails: it handed out more than its 64MiB of output
;; limit: output-bytes

(func $evil (param $batch i32) (result i32)
  (local $at i32)
  (drop (memory.grow (i32.const 32)))
  (loop $next
    ;; Failures of 12 bytes: origin, text, length.
    (i32.store offset=0 (i32.add (global.get $text) (i32.mul (local.get $at) (i32.const 12))) (i32.const 0))
    (i32.store offset=4 (i32.add (global.get $text) (i32.mul (local.get $at) (i32.const 12))) (i32.const 131072))
    (i32.store offset=8 (i32.add (global.get $text) (i32.mul (local.get $at) (i32.const 12))) (i32.const 1000000))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 1000))))
  (call $fail (global.get $text) (i32.const 1000)))
