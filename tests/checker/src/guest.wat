;; Reads stdin, sleeps for as many milliseconds as its first four bytes say (little endian), and prints all of it with
;; sixteen random bytes behind it: an answer names its request, and no two runs print the same.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  ;; An I/O vector at 0, how many bytes were moved at 8, a subscription at 16, its event at 96, the number of events at
  ;; 128, and the data from 1024 to the end.
  (memory (export "memory") 5)
  (func (export "_start")
    (local $length i32)
    (local $done i32)
    (block $end
      (loop $more
        (i32.store (i32.const 0) (i32.add (i32.const 1024) (local.get $length)))
        (i32.store (i32.const 4) (i32.sub (i32.const 320000) (local.get $length)))
        (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
        (br_if $end (i32.eqz (i32.load (i32.const 8))))
        (local.set $length (i32.add (local.get $length) (i32.load (i32.const 8))))
        (br $more)))
    (if (i32.load (i32.const 1024))
      (then
        ;; Clock 1 is the monotonic one.
        (i32.store (i32.const 32) (i32.const 1))
        (i64.store (i32.const 40) (i64.mul (i64.load32_u (i32.const 1024)) (i64.const 1000000)))
        (if (call $poll (i32.const 16) (i32.const 96) (i32.const 1) (i32.const 128)) (then (unreachable)))))
    (if (call $random (i32.add (i32.const 1024) (local.get $length)) (i32.const 16)) (then (unreachable)))
    (local.set $length (i32.add (local.get $length) (i32.const 16)))
    (loop $more
      (i32.store (i32.const 0) (i32.add (i32.const 1024) (local.get $done)))
      (i32.store (i32.const 4) (i32.sub (local.get $length) (local.get $done)))
      (if (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then (unreachable)))
      (local.set $done (i32.add (local.get $done) (i32.load (i32.const 8))))
      (br_if $more (i32.lt_u (local.get $done) (local.get $length))))))
