;; Prints without end.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $pieces i32) (param $count i32) (param $taken i32) (result i32)))
  (memory (export "memory") 1)
  ;; What fd_write is to write, as an address and a length: 32 KiB of zero bytes from 1024 on.
  (data (i32.const 0) "\00\04\00\00" "\00\80\00\00")
  (func (export "_start")
    (loop $for_ever
      ;; An error is no reason to stop: the host has to see to that.
      (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $for_ever))))
