;; Makes an integer of what is no number.
;; expect: fails: invalid conversion to integer

(func $evil (param $batch i32) (result i32)
  (i32.trunc_f64_s (f64.const nan)))
