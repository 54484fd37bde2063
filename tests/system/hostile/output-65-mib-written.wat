;; Writes values of 65 MiB.
;; expect: fails: it handed out more than its 64MiB of output
;; limit: output-bytes
;; limits: time = "5s", memory = "256MiB"

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 1100)))
  (memory.fill (i32.const 131072) (i32.const 120) (i32.const 0x4100000))
  (drop (call $two))
  (i32.store offset=48 (global.get $output) (i32.const 131072))
  (i32.store offset=52 (global.get $output) (i32.const 0x4100000))
  (global.get $answer))
