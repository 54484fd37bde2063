;; A list whose length in bytes is beyond 32 bits.
;; expect: fails: list pointer/length out of bounds of memory

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=12 (global.get $output) (i32.const -1))
  (global.get $answer))
