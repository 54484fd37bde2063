;; Puts 500 KB, and gets it 200 times in one call.
;; expect: fails: come to more than 67108864 bytes
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $evil (param $batch i32) (result i32)
  (local $handle i32)
  (call $state-open (global.get $text) (i32.const 4) (global.get $told))
  (local.set $handle (i32.load offset=4 (global.get $told)))
  (drop (memory.grow (i32.const 16)))
  (i32.store offset=4 (global.get $ends) (i32.const 500000))
  (call $state-put (local.get $handle)
    (i32.const 0) (i32.const 0) (global.get $ends) (i32.const 1) (i32.const 0) (i32.const 0)
    (i32.const 131072) (i32.const 500000) (i32.add (global.get $ends) (i32.const 4)) (i32.const 1) (i32.const 0) (i32.const 0))
  ;; 200 empty keys.
  (call $state-get (local.get $handle) (i32.const 0) (i32.const 0) (i32.const 524288) (i32.const 200)
    (i32.const 0) (i32.const 0) (global.get $told))
  (unreachable))
