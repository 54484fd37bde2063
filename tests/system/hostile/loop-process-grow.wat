;; Asks for memory again and again that it isn't given.
;; expect: fails: it missed its deadline
;; limit: time

(func $evil (param $batch i32) (result i32)
  (loop $again
    (drop (memory.grow (i32.const 60000)))
    (br $again))
  (unreachable))
