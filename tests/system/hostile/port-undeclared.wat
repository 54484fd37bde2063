;; Leaves by a port that its needs don't name.
;; expect: fails: output on port "side", which the plugin's needs do not name

(data (i32.const 2048) "side")
(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store offset=0 (global.get $output) (global.get $text))
  (i32.store offset=4 (global.get $output) (i32.const 4))
  (global.get $answer))
