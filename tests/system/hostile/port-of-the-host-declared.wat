;; Declares the port `failed`, which is the host's.
;; expect: refused: its plugin declares a port "failed"

(data (i32.const 2048) "failed")
(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store offset=4 (global.get $needs) (i32.const 2040))
  (i32.store offset=8 (global.get $needs) (i32.const 1))
  (i32.store (i32.const 2040) (global.get $text))
  (i32.store (i32.const 2044) (i32.const 6))
  (global.get $needs))
