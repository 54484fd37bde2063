;; Divides the smallest number by -1.
;; expect: fails: integer overflow

(func $evil (param $batch i32) (result i32)
  (i32.div_s (i32.const 0x80000000) (i32.const -1)))
