;; Needs 100,000 tables without a name.
;; expect: refused: it needs 100000 names as lookups, 256 are allowed

(memory $memory 20)
(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store offset=12 (global.get $needs) (i32.const 131072))
  (i32.store offset=16 (global.get $needs) (i32.const 100000))
  (global.get $needs))
