;; Logs the same line for ever.
;; expect: fails: it missed its deadline
;; limit: time

(func $evil (param $batch i32) (result i32)
  (i32.store (global.get $text) (i32.const 0x21212121))
  (loop $again
    (call $log (i32.const 2) (global.get $text) (i32.const 4))
    (br $again))
  (unreachable))
