;; Takes all memory that it can get, and keeps it: the next batch is given to a new instance.
;; expect: passes
;; limit: memory

(func $evil (param $batch i32) (result i32)
  (loop $more
    (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
  (call $pass (local.get $batch)))
