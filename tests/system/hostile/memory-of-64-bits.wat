;; A second memory with addresses of 64 bits, which is to be 2^46 bytes large.
;; expect: passes

(memory $large i64 1)
(func $evil (param $batch i32) (result i32)
  (drop (memory.grow $large (i64.const 0x40000000)))
  (call $pass (local.get $batch)))
