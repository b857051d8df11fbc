;; Writes what it reads, byte by byte the same, until its input ends.
(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param $fd i32) (param $buffers i32) (param $count i32) (param $got i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $pieces i32) (param $count i32) (param $taken i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param $code i32)))

  ;; At 0 an address and a length for the host, at 8 how much it read or wrote, from 1024 on the buffer.
  (memory (export "memory") 1)

  (func (export "_start")
    (local $left i32)
    (local $address i32)
    (block $ended
      (loop $more
        (call $offer (i32.const 1024) (i32.const 64512))
        (if (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8))
          (then (call $proc_exit (i32.const 1))))
        (local.set $left (i32.load (i32.const 8)))
        (local.set $address (i32.const 1024))
        (br_if $ended (i32.eqz (local.get $left)))
        ;; The host may take less than it is offered.
        (loop $rest
          (call $offer (local.get $address) (local.get $left))
          (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
            (then (call $proc_exit (i32.const 1))))
          (local.set $address (i32.add (local.get $address) (i32.load (i32.const 8))))
          (local.set $left (i32.sub (local.get $left) (i32.load (i32.const 8))))
          (br_if $rest (local.get $left)))
        (br $more))))

  (func $offer (param $address i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $address))
    (i32.store (i32.const 4) (local.get $length))))
