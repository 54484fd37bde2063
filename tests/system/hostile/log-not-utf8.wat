;; Logs what is no text.
;; expect: fails: invalid utf-8

(data (i32.const 2048) "\f0\28\8c\28")
(func $evil (param $batch i32) (result i32)
  (call $log (i32.const 2) (global.get $text) (i32.const 4))
  (unreachable))
