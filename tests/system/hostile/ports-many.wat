;; Declares 100,000 ports, which the host would compare with each other for each answer.
;; expect: refused: it needs 100000 names as ports, 256 are allowed

(memory $memory 20)
(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store offset=4 (global.get $needs) (i32.const 131072))
  (i32.store offset=8 (global.get $needs) (i32.const 100000))
  (global.get $needs))
