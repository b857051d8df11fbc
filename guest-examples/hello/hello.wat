;; The smallest program that prints: start here, and see `add` for one that reads its arguments.
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $pieces i32) (param $count i32) (param $taken i32) (result i32)))
  (memory (export "memory") 1)
  ;; At 0 what fd_write is to write, as an address and a length; at 8 how many bytes it took; at 16 the text.
  (data (i32.const 0) "\10\00\00\00" "\07\00\00\00")
  (data (i32.const 16) "hello!\n")
  (func (export "_start")
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
