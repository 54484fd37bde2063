;; Leaves by the port `failed`, which is the host's.
;; expect: fails: output on port "failed", which the plugin's needs do not name

(data (i32.const 2048) "failed")
(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=0 (global.get $output) (global.get $text))
  (i32.store offset=4 (global.get $output) (i32.const 6))
  (global.get $answer))
