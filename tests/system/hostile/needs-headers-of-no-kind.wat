;; Needs headers with a truth of 7: any but 0 is true.
;; expect: passes

(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.store8 offset=28 (global.get $needs) (i32.const 7))
  (global.get $needs))
