;; Answers with an output for each of its 256 ports, each of which might inherit all of the batch, and has nothing.
;; expect: passes

(memory $memory 80)
;; Names of four letters each from "aaaa" on, at 131072 as (text, length), their texts at 524288.
(func $configure (param $config i32) (param $length i32) (result i32)
  (local $at i32) (local $text i32)
  (loop $next
    (local.set $text (i32.add (i32.const 524288) (i32.mul (local.get $at) (i32.const 4))))
    (i32.store (local.get $text) (i32.add (i32.const 0x61616161) (i32.or (i32.or
      (i32.and (local.get $at) (i32.const 15))
      (i32.shl (i32.and (local.get $at) (i32.const 0xf0)) (i32.const 4)))
      (i32.or
      (i32.shl (i32.and (local.get $at) (i32.const 0xf00)) (i32.const 8))
      (i32.shl (i32.and (local.get $at) (i32.const 0xf000)) (i32.const 12))))))
    (i32.store offset=0 (i32.add (i32.const 131072) (i32.mul (local.get $at) (i32.const 8))) (local.get $text))
    (i32.store offset=4 (i32.add (i32.const 131072) (i32.mul (local.get $at) (i32.const 8))) (i32.const 4))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 256))))
  (i32.store offset=4 (global.get $needs) (i32.const 131072))
  (i32.store offset=8 (global.get $needs) (i32.const 256))
  (global.get $needs))
(func $evil (param $batch i32) (result i32)
  (local $at i32) (local $output i32)
  (drop (call $pass (local.get $batch)))
  ;; 257 outputs of 144 bytes from 1 MiB on: the honest one, and an empty one for each port.
  (memory.copy (i32.const 1048576) (global.get $output) (i32.const 144))
  (loop $next
    (local.set $output (i32.add (i32.const 1048720) (i32.mul (local.get $at) (i32.const 144))))
    (i64.store (local.get $output) (i64.load (i32.add (i32.const 131072) (i32.mul (local.get $at) (i32.const 8)))))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 256))))
  (i32.store offset=4 (global.get $answer) (i32.const 1048576))
  (i32.store offset=8 (global.get $answer) (i32.const 257))
  (global.get $answer))
