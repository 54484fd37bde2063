;; Traps in `configure`.
;; expect: refused: unreachable

(func $configure (param $config i32) (param $length i32) (result i32) (unreachable))
