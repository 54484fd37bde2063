;; A record comes from one that the batch hasn't.
;; expect: fails: its answer is malformed: output on port "": an origin is out of range of

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=4 (global.get $origins) (call $records (local.get $batch)))
  (global.get $answer))
