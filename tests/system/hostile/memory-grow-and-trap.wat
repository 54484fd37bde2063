;; Takes all memory that it can get, writes to all of it, and traps.
;; expect: fails: it had asked for more than its 64MiB of memory
;; limit: memory

(func $evil (param $batch i32) (result i32)
  (loop $more
    (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
  (memory.fill (global.get $heap) (i32.const 1) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (global.get $heap)))
  (unreachable))
