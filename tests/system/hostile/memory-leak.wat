;; Never takes back what it gave to the host, 16 MiB for each call.
;; expect: passes

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (call $allocate (local.get $align) (i32.add (local.get $size) (i32.const 0x100000))))
(func $post-process (param $answer i32))
