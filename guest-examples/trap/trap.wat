;; Prints a line and then does what a program cannot survive. The argument chooses what:
;; `unreachable` (also without one), `divide`, `memory`, `stack`, `table`.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param $count i32) (param $bytes i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get"
    (func $args_get (param $pointers i32) (param $strings i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $pieces i32) (param $count i32) (param $taken i32) (result i32)))
  (memory (export "memory") 1)
  (table 1 funcref)
  (type $nothing (func))
  ;; At 0 what fd_write is to write, as an address and a length; at 8 a place for counts; at 16 the text.
  (data (i32.const 0) "\10\00\00\00" "\07\00\00\00")
  (data (i32.const 16) "so far\n")

  (func (export "_start")
    (local $how i32)
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
    (drop (call $args_sizes_get (i32.const 8) (i32.const 12)))
    (if (i32.ge_u (i32.load (i32.const 8)) (i32.const 2))
      (then
        (drop (call $args_get (i32.const 64) (i32.const 1024)))
        (local.set $how (i32.load8_u (i32.load (i32.const 68))))))
    (if (i32.eq (local.get $how) (i32.const 100)) ;; "d"
      (then (drop (i32.div_u (i32.const 1) (i32.const 0)))))
    (if (i32.eq (local.get $how) (i32.const 109)) ;; "m"
      (then (drop (i32.load (i32.const -4)))))
    (if (i32.eq (local.get $how) (i32.const 115)) ;; "s"
      (then (drop (call $deeper (i32.const 0)))))
    (if (i32.eq (local.get $how) (i32.const 116)) ;; "t": nobody filled the table
      (then (call_indirect (type $nothing) (i32.const 0))))
    unreachable)

  ;; The addition afterwards keeps it from being a tail call.
  (func $deeper (param $depth i32) (result i32)
    (i32.add (call $deeper (i32.add (local.get $depth) (i32.const 1))) (local.get $depth))))
