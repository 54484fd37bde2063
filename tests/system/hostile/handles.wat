;; Opens its state again and again without dropping what it got: each is an entry in a table of the host's.
;; expect: fails: store handle limit exceeded
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $evil (param $batch i32) (result i32)
  (loop $again
    (call $state-open (global.get $text) (i32.const 4) (global.get $told))
    (br $again))
  (unreachable))
