;; Copies 24 MiB of memory for ever: each time it is one instruction, which nothing interrupts.
;; expect: fails: it missed its deadline
;; limit: time

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 768)))
  (loop $again
    (memory.copy (i32.const 131072) (i32.const 0x1800000) (i32.const 0x1800000))
    (br $again))
  (unreachable))
