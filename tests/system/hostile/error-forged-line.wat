;; Refuses the batch with what looks like lines of the log: it stays in one.
;; expect: fails: no  ERROR all is lost

(data (i32.const 2048) "no\n ERROR all is lost")
(func $evil (param $batch i32) (result i32)
  (call $refuse (global.get $text) (i32.const 21)))
