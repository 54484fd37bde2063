;; Refuses the batch with 1 GiB of words.
;; expect: fails: it handed out more than its 64MiB of output
;; limit: output-bytes
;; limits: time = "5s", memory = "2GiB", memory-mark = "2GiB"

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 16400)))
  (call $refuse (i32.const 131072) (i32.const 0x40000000)))
