;; Asks for more memory than there is, and lives with the answer.
;; expect: passes
;; limit: memory

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 65000)))
  (call $pass (local.get $batch)))
