;; `configure` never returns.
;; expect: refused: it missed its deadline

(func $configure (param $config i32) (param $length i32) (result i32)
  (loop $for-ever (br $for-ever))
  (unreachable))
