;; Makes 100,000 records of one, each of which inherits its 4 KB.
;; expect: fails: bytes with what its records inherit

(func $evil (param $batch i32) (result i32)
  (if (i32.ne (call $records (local.get $batch)) (i32.const 1)) (then (unreachable)))
  (drop (memory.grow (i32.const 16)))
  (call $keep (i32.const 131072) (i32.const 100000)))
