;; A record comes from the 4,294,967,295th of the batch.
;; expect: fails: its answer is malformed: output on port "": an origin is out of range of

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=4 (global.get $origins) (i32.const -1))
  (global.get $answer))
