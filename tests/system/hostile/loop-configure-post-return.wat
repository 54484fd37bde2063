;; The host's thanks for what `configure` needs never come to an end.
;; expect: refused: it missed its deadline

(func $post-configure (param $needs i32)
  (loop $for-ever (br $for-ever)))
