;; Traps in a function with a name that looks like a line of the log.
;; expect: fails: executed (in x  ERROR all is lost

(func $bottom (@name "x\n ERROR all is lost") (result i32) (unreachable))
(func $evil (param $batch i32) (result i32)
  (call $bottom))
