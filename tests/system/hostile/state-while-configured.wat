;; Reads its state while it is configured, when there is no partition yet.
;; expect: refused: a table or state can be asked while a batch is processed, and not before
;; step: state = { kept = "{case}" }

(data (i32.const 2048) "kept")
(func $configure (param $config i32) (param $length i32) (result i32)
  (call $state-open (global.get $text) (i32.const 4) (global.get $told))
  (call $state-get (i32.load offset=4 (global.get $told))
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $told))
  (global.get $needs))
