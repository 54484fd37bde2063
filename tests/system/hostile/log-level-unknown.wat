;; Logs at a level that there isn't.
;; expect: fails: unexpected discriminant: 9

(func $evil (param $batch i32) (result i32)
  (call $log (i32.const 9) (global.get $text) (i32.const 0))
  (unreachable))
