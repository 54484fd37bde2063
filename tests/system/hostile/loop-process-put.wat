;; Puts the same key into its state for ever.
;; expect: fails: it missed its deadline
;; limit: time
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $evil (param $batch i32) (result i32)
  (local $handle i32)
  (call $state-open (global.get $text) (i32.const 4) (global.get $told))
  (local.set $handle (i32.load offset=4 (global.get $told)))
  (i32.store (global.get $ends) (i32.const 4))
  (loop $again
    (call $state-put (local.get $handle)
      (global.get $text) (i32.const 4) (global.get $ends) (i32.const 1) (i32.const 0) (i32.const 0)
      (global.get $text) (i32.const 4) (global.get $ends) (i32.const 1) (i32.const 0) (i32.const 0))
    (br $again))
  (unreachable))
