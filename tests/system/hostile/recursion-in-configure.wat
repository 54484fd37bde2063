;; `configure` calls itself for ever.
;; expect: refused: call stack exhausted

(func $configure (param $config i32) (param $length i32) (result i32)
  (i32.add (call $configure (local.get $config) (local.get $length)) (i32.const 4)))
