;; Sleeps as many milliseconds as its first argument says (none without one), then prints `awake`.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param $count i32) (param $bytes i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get"
    (func $args_get (param $pointers i32) (param $strings i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll_oneoff (param $wanted i32) (param $events i32) (param $count i32) (param $happened i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $pieces i32) (param $count i32) (param $taken i32) (result i32)))

  ;; What lies where:
  ;;     0  what fd_write is to write: an address and a length
  ;;     8  a place for counts
  ;;    16  the text
  ;;    64  what to wait for: a subscription of 48 bytes
  ;;   128  what happened: an event of 32 bytes
  ;;   256  the addresses of the arguments
  ;;  1024  the arguments
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00" "\06\00\00\00")
  (data (i32.const 16) "awake\n")

  (func (export "_start")
    (drop (call $args_sizes_get (i32.const 8) (i32.const 12)))
    (if (i32.ge_u (i32.load (i32.const 8)) (i32.const 2))
      (then
        (drop (call $args_get (i32.const 256) (i32.const 1024)))
        (call $sleep (call $number (i32.load (i32.const 260))))))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  (func $sleep (param $milliseconds i64)
    ;; Memory is zero at first: the subscription's user data (64) stays so, its kind (72) is the clock's, it
    ;; counts from now on (its flags, 104), and the precision (96) is the best there is.
    (i32.store (i32.const 80) (i32.const 1)) ;; the monotonic clock
    (i64.store (i32.const 88) (i64.mul (local.get $milliseconds) (i64.const 1000000)))
    (if (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)) (then unreachable)))

  ;; The decimal number that the text begins with.
  (func $number (param $at i32) (result i64)
    (local $digit i32)
    (local $number i64)
    (block $end
      (loop $each
        (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
        (br_if $end (i32.gt_u (local.get $digit) (i32.const 9)))
        (local.set $number
          (i64.add (i64.mul (local.get $number) (i64.const 10)) (i64.extend_i32_u (local.get $digit))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $each)))
    (local.get $number)))
