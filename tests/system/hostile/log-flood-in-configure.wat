;; Logs 100,000 lines while it is configured.
;; expect: passes

(func $configure (param $config i32) (param $length i32) (result i32)
  (local $lines i32)
  (i32.store (global.get $text) (i32.const 0x21212121))
  (loop $next
    (call $log (i32.const 4) (global.get $text) (i32.const 4))
    (local.set $lines (i32.add (local.get $lines) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $lines) (i32.const 100000))))
  (global.get $needs))
