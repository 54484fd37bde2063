;; Declares a port whose name has a megabyte.
;; expect: refused: names have 100 characters

(memory $memory 20)
(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store offset=0 (global.get $text) (i32.const 131072))
  (i32.store offset=4 (global.get $text) (i32.const 1000000))
  (i32.store offset=4 (global.get $needs) (global.get $text))
  (i32.store offset=8 (global.get $needs) (i32.const 1))
  (global.get $needs))
