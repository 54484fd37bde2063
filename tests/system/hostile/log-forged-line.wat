;; Logs what looks like a line of the host's, and clears the terminal: it stays in one line, without control characters.
;; expect: passes

(data (i32.const 2048) "no\n ERROR all is lost\1b[2J\00")
(func $evil (param $batch i32) (result i32)
  (call $log (i32.const 2) (global.get $text) (i32.const 26))
  (call $pass (local.get $batch)))
