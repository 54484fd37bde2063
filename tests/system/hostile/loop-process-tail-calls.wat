;; No loop, but two functions that end by calling each other, without taking stack.
;; expect: fails: it missed its deadline
;; limit: time

(func $ping (result i32) (return_call $pong))
(func $pong (result i32) (return_call $ping))
(func $evil (param $batch i32) (result i32)
  (call $ping))
