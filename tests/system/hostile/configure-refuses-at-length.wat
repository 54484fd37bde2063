;; Refuses its configuration with 30 MB of words.
;; expect: refused: refuses its configuration: xxx

(memory $memory 480)
(func $configure (param $config i32) (param $length i32) (result i32)
  (memory.fill (i32.const 131072) (i32.const 120) (i32.const 30000000))
  (i32.store offset=0 (global.get $needs) (i32.const 1))
  (i32.store offset=4 (global.get $needs) (i32.const 131072))
  (i32.store offset=8 (global.get $needs) (i32.const 30000000))
  (global.get $needs))
