;; Declares a port whose name looks like a line of the log.
;; expect: refused: it needs a name as ports that begins with "x  ERROR all is lost"

(data (i32.const 2048) "x\n ERROR all is lost")
(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store offset=4 (global.get $needs) (i32.const 2040))
  (i32.store offset=8 (global.get $needs) (i32.const 1))
  (i32.store (i32.const 2040) (global.get $text))
  (i32.store (i32.const 2044) (i32.const 20))
  (global.get $needs))
