;; Makes a hundred million records of one.
;; expect: fails: it handed out more than its 64MiB of output
;; limit: output-bytes
;; limits: time = "5s", memory = "512MiB"

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 6200)))
  (call $keep (i32.const 131072) (i32.const 100000000)))
