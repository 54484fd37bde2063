;; Needs ten million ports.
;; expect: refused: it handed out more than its 64MiB of output

(memory $memory 900)
(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store offset=4 (global.get $needs) (i32.const 0))
  (i32.store offset=8 (global.get $needs) (i32.const 7000000))
  (global.get $needs))
