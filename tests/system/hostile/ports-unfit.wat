;; Declares 100 ports without a name.
;; expect: refused: its plugin declares a port ""

(memory $memory 20)
(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store offset=4 (global.get $needs) (i32.const 131072))
  (i32.store offset=8 (global.get $needs) (i32.const 100))
  (global.get $needs))
