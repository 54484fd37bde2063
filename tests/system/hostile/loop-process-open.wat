;; Asks for a table that it hasn't for ever: each time the host writes its refusal into its memory.
;; expect: fails: it missed its deadline
;; limit: time

(func $evil (param $batch i32) (result i32)
  (loop $again
    (global.set $heap (i32.const 131072))
    (call $lookup-open (global.get $text) (i32.const 8) (global.get $told))
    (br $again))
  (unreachable))
