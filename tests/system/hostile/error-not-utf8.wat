;; Refuses the batch with words that are no text: half of a character.
;; expect: fails: utf-8

(data (i32.const 2048) "no\e2\82")
(func $evil (param $batch i32) (result i32)
  (call $refuse (global.get $text) (i32.const 4)))
