;; Gets 10,000 keys from its state for ever.
;; expect: fails: it missed its deadline
;; limit: time
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $evil (param $batch i32) (result i32)
  (local $handle i32)
  (local $ends i32)
  (call $state-open (global.get $text) (i32.const 4) (global.get $told))
  (local.set $handle (i32.load offset=4 (global.get $told)))
  ;; All keys are empty: 10,000 ends of 0.
  (local.set $ends (call $allocate (i32.const 4) (i32.const 40000)))
  (loop $again
    (global.set $heap (i32.add (local.get $ends) (i32.const 40000)))
    (call $state-get (local.get $handle) (i32.const 0) (i32.const 0) (local.get $ends) (i32.const 10000)
      (i32.const 0) (i32.const 0) (global.get $told))
    (br $again))
  (unreachable))
