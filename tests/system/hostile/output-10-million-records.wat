;; Makes ten million records of one.
;; expect: fails: its answer has 10000000 records, 1000000 are allowed
;; limit: output-records

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 620)))
  (call $keep (i32.const 131072) (i32.const 10000000)))
