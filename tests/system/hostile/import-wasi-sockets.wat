;; Wants the network by WASI.
;; expect: refused: imports what it is not allowed: wasi:sockets/tcp-create-socket@0.2.0

(component
  (import "wasi:sockets/tcp-create-socket@0.2.0" (instance
    (export "create-tcp-socket" (func (param "family" u8) (result u32)))))
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (instance $transform (export "process" (func $f)))
  (export "millstream:plugin/transform@0.1.0" (instance $transform)))
