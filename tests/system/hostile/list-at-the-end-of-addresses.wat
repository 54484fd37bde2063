;; A list that begins with the last address.
;; expect: fails: list pointer

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=8 (global.get $output) (i32.const -4))
  (global.get $answer))
