;; Refuses the batch with 30 MB of words: they are cut.
;; expect: fails: yyy

(func $evil (param $batch i32) (result i32)
  (drop (memory.grow (i32.const 480)))
  (memory.fill (i32.const 131072) (i32.const 121) (i32.const 30000000))
  (call $refuse (i32.const 131072) (i32.const 30000000)))
