;; One record, and two keys.
;; expect: fails: its answer is malformed: output on port "": 1 origins, but 2 keys

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=12 (global.get $output) (i32.const 1))
  (i32.store offset=44 (global.get $output) (i32.const 0))
  (call $set-column (i32.add (global.get $output) (i32.const 16)))
  (global.get $answer))
