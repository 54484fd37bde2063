;; Opens a table before it is there itself.
;; expect: refused: uninitialized element

(func $start (call $lookup-open (global.get $text) (i32.const 8) (global.get $told)))
(start $start)
