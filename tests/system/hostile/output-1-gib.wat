;; Says that the values of its output come to 1 GiB, which its memory has: nobody copies that.
;; expect: fails: it handed out more than its 64MiB of output
;; limit: output-bytes
;; limits: time = "5s", memory = "2GiB", memory-mark = "2GiB"

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 16400)))
  (drop (call $two))
  (i32.store offset=48 (global.get $output) (i32.const 65536))
  (i32.store offset=52 (global.get $output) (i32.const 0x40000000))
  (global.get $answer))
