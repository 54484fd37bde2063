;; A list of integers at an odd address.
;; expect: fails: list pointer is not aligned

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=8 (global.get $output) (i32.add (global.get $origins) (i32.const 1)))
  (global.get $answer))
