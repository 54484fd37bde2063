;; What stands in for WASI preview 1 in a component whose language's runtime asks for it: there is no file, no argument and no environment,
;; what is written goes nowhere, every look at a clock finds it a microsecond on, and randomness is the same in each instance. A plugin gets
;; time with its records, and nothing from outside.
(module
  (import "env" "memory" (memory 0))
  ;; Nanoseconds.
  (global $clock (mut i64) (i64.const 1_000_000_000))
  ;; Of an xorshift generator: never zero.
  (global $seed (mut i64) (i64.const 88172645463325252))

  ;; WASI's error numbers.
  (global $bad_descriptor i32 (i32.const 8))
  (global $no_such_call i32 (i32.const 52))

  (func (export "sched_yield") (result i32)
    (i32.const 0))
  (func (export "proc_exit") (param i32)
    unreachable)

  (func $none (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (export "args_sizes_get" (func $none))
  (export "environ_sizes_get" (func $none))
  (func $nothing (param i32 i32) (result i32)
    (i32.const 0))
  (export "args_get" (func $nothing))
  (export "environ_get" (func $nothing))

  (func (export "clock_time_get") (param $which i32) (param $precision i64) (param $to i32) (result i32)
    (global.set $clock (i64.add (global.get $clock) (i64.const 1000)))
    (i64.store (local.get $to) (global.get $clock))
    (i32.const 0))

  (func (export "random_get") (param $to i32) (param $bytes i32) (result i32)
    (local $end i32)
    (local $x i64)
    (local.set $end (i32.add (local.get $to) (local.get $bytes)))
    (local.set $x (global.get $seed))
    (block $full
      (loop $next
        (br_if $full (i32.ge_u (local.get $to) (local.get $end)))
        (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
        (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
        (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
        (i64.store8 (local.get $to) (i64.shr_u (local.get $x) (i64.const 24)))
        (local.set $to (i32.add (local.get $to) (i32.const 1)))
        (br $next)))
    (global.set $seed (local.get $x))
    (i32.const 0))

  ;; All bytes count as written.
  (func (export "fd_write") (param $fd i32) (param $pieces i32) (param $count i32) (param $written i32) (result i32)
    (local $end i32)
    (local $bytes i32)
    (local.set $end (i32.add (local.get $pieces) (i32.shl (local.get $count) (i32.const 3))))
    (block $all
      (loop $next
        (br_if $all (i32.ge_u (local.get $pieces) (local.get $end)))
        (local.set $bytes (i32.add (local.get $bytes) (i32.load offset=4 (local.get $pieces))))
        (local.set $pieces (i32.add (local.get $pieces) (i32.const 8)))
        (br $next)))
    (i32.store (local.get $written) (local.get $bytes))
    (i32.const 0))

  ;; The three standard descriptors are there, and can do nothing.
  (func (export "fd_fdstat_get") (param $fd i32) (param $to i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2))
      (then (return (global.get $bad_descriptor))))
    (memory.fill (local.get $to) (i32.const 0) (i32.const 24))
    ;; A character device.
    (i32.store8 (local.get $to) (i32.const 2))
    (i32.const 0))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32)
    (i32.const 0))
  (func $no_descriptor (param i32) (result i32)
    (global.get $bad_descriptor))
  (export "fd_close" (func $no_descriptor))
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32)
    (global.get $bad_descriptor))
  (func (export "fd_prestat_get") (param i32 i32) (result i32)
    (global.get $bad_descriptor))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32)
    (global.get $bad_descriptor))
  ;; What files and folders would take, of which there are none.
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)
    (global.get $bad_descriptor))
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32)
    (global.get $bad_descriptor))
  (func (export "fd_filestat_get") (param i32 i32) (result i32)
    (global.get $bad_descriptor))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32)
    (global.get $bad_descriptor))
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32)
    (global.get $bad_descriptor))

  ;; Who sleeps until some time is awake at once, and it is that time: of the first thing waited for, if that is a clock.
  (func (export "poll_oneoff") (param $what i32) (param $to i32) (param $count i32) (param $events i32) (result i32)
    (if (i32.or (i32.eqz (local.get $count)) (i32.ne (i32.load8_u offset=8 (local.get $what)) (i32.const 0)))
      (then (return (global.get $no_such_call))))
    (if (i32.and (i32.load16_u offset=40 (local.get $what)) (i32.const 1))
      (then
        ;; The clock doesn't go back.
        (if (i64.gt_s (i64.load offset=24 (local.get $what)) (global.get $clock))
          (then (global.set $clock (i64.load offset=24 (local.get $what))))))
      (else (global.set $clock (i64.add (global.get $clock) (i64.load offset=24 (local.get $what))))))
    (memory.fill (local.get $to) (i32.const 0) (i32.const 32))
    (i64.store (local.get $to) (i64.load (local.get $what)))
    (i32.store (local.get $events) (i32.const 1))
    (i32.const 0))
)
