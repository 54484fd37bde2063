;; Values that are neither there nor not there.
;; expect: fails: invalid option discriminant

(func $evil (param $batch i32) (result i32)
  (drop (call $two))
  (i32.store8 offset=44 (global.get $output) (i32.const 2))
  (global.get $answer))
