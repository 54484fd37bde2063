;; `cabi_realloc` never returns when it is asked for the room for the configuration.
;; expect: refused: it missed its deadline

(func $realloc (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
  (loop $for-ever (br $for-ever))
  (unreachable))
