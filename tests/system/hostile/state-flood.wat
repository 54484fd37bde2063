;; Puts 100 MB into its state, 500 KB under each key.
;; expect: fails: one call changes state by more than 67108864 bytes
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $evil (param $batch i32) (result i32)
  (local $handle i32)
  (call $state-open (global.get $text) (i32.const 4) (global.get $told))
  (local.set $handle (i32.load offset=4 (global.get $told)))
  (drop (memory.grow (i32.const 16)))
  (i32.store offset=0 (global.get $ends) (i32.const 4))
  (i32.store offset=4 (global.get $ends) (i32.const 500000))
  (loop $next
    (i32.store (global.get $text) (i32.add (i32.load (global.get $text)) (i32.const 1)))
    (call $state-put (local.get $handle)
      (global.get $text) (i32.const 4) (global.get $ends) (i32.const 1) (i32.const 0) (i32.const 0)
      (i32.const 131072) (i32.const 500000) (i32.add (global.get $ends) (i32.const 4)) (i32.const 1) (i32.const 0) (i32.const 0))
    (br_if $next (i32.lt_u (i32.load (global.get $text)) (i32.const -256))))
  (unreachable))
