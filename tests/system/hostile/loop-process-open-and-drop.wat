;; Opens its state and drops it for ever.
;; expect: fails: it missed its deadline
;; limit: time
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store offset=20 (global.get $needs) (i32.const 2040))
  (i32.store offset=24 (global.get $needs) (i32.const 1))
  (i32.store (i32.const 2040) (global.get $text))
  (i32.store (i32.const 2044) (i32.const 4))
  (global.get $needs))
(func $evil (param $batch i32) (result i32)
  (loop $again
    (call $state-open (global.get $text) (i32.const 4) (global.get $told))
    (call $state-drop (i32.load offset=4 (global.get $told)))
    (br $again))
  (unreachable))
