;; Prints the sum of its arguments: `add 3 5` prints `8`, `add` prints `0`.
;;
;; A WASI preview 1 command, written to be read. The host runs `_start` once and lends it four functions.
;; What the two say to each other lies in the guest's own memory, and is passed as an address and a length.
;;
;; An argument is a decimal integer that fits 64 bits, with an optional `-`. Anything else, and a sum that
;; does not fit, is told on stderr and ends with exit code 1.
(module
  ;; Each returns 0, or WASI's number for what went wrong; `proc_exit` does not return.
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param $count i32) (param $bytes i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get"
    (func $args_get (param $pointers i32) (param $strings i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $pieces i32) (param $count i32) (param $taken i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param $code i32)))

  ;; What lies where:
  ;;     0  the number of arguments, the program's own name among them
  ;;     4  the length of all arguments together, in bytes
  ;;     8  how many bytes fd_write took
  ;;    16  what fd_write is to write: an address and a length
  ;;    64  the digits of the sum, written from the right: they end before 96
  ;;    96  texts
  ;;   256  the addresses of the arguments, and after them the arguments, each ended by a zero byte
  (memory (export "memory") 1)
  (data (i32.const 96) "\n")
  (data (i32.const 128) "add: not a 64-bit integer: ")
  (data (i32.const 192) "add: the sum does not fit 64 bits")

  (func (export "_start")
    (local $pointer i32) ;; to the address of the next argument
    (local $end i32)     ;; where those addresses end
    (local $sum i64)
    (local $term i64)
    (local $next i64)
    (call $read_args)
    (local.set $end (i32.add (i32.const 256) (i32.mul (i32.load (i32.const 0)) (i32.const 4))))
    (local.set $pointer (i32.const 260)) ;; behind the program's name
    (loop $each
      (if (i32.lt_u (local.get $pointer) (local.get $end))
        (then
          (local.set $term (call $parse (i32.load (local.get $pointer))))
          (local.set $next (i64.add (local.get $sum) (local.get $term)))
          ;; The sum overflowed if its sign is neither that of the one nor of the other.
          (if (i64.lt_s
                (i64.and
                  (i64.xor (local.get $sum) (local.get $next))
                  (i64.xor (local.get $term) (local.get $next)))
                (i64.const 0))
            (then (call $fail (i32.const 192) (i32.const 33) (i32.const 0) (i32.const 0))))
          (local.set $sum (local.get $next))
          (local.set $pointer (i32.add (local.get $pointer) (i32.const 4)))
          (br $each))))
    (call $print (local.get $sum)))

  ;; Has the host write all arguments into memory, which grows if they need more.
  (func $read_args
    (local $strings i32)
    (local $missing i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (local.set $strings (i32.add (i32.const 256) (i32.mul (i32.load (i32.const 0)) (i32.const 4))))
    ;; In pages of 64 KiB, rounded up; one is there.
    (local.set $missing
      (i32.shr_u
        (i32.add (i32.add (local.get $strings) (i32.load (i32.const 4))) (i32.const 65535))
        (i32.const 16)))
    (local.set $missing (i32.sub (local.get $missing) (i32.const 1)))
    (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then unreachable))
    (drop (call $args_get (i32.const 256) (local.get $strings))))

  ;; The integer that the text says. Does not return if it says none.
  (func $parse (param $text i32) (result i64)
    (local $at i32)
    (local $negative i32)
    (local $digit i32)
    (local $size i64) ;; without the sign, which has room for 2^63
    (local.set $negative (i32.eq (i32.load8_u (local.get $text)) (i32.const 45))) ;; "-"
    (local.set $at (i32.add (local.get $text) (local.get $negative)))
    (loop $each
      (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))) ;; "0"
      ;; Ten times more than this does not fit. A byte below "0" is as an unsigned number a huge digit.
      (if (i32.or
            (i32.gt_u (local.get $digit) (i32.const 9))
            (i64.gt_u (local.get $size) (i64.const 922337203685477580)))
        (then (call $fail_number (local.get $text))))
      (local.set $size
        (i64.add (i64.mul (local.get $size) (i64.const 10)) (i64.extend_i32_u (local.get $digit))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $each (i32.load8_u (local.get $at))))
    ;; At most 2^63 - 1, and one more below zero.
    (if (i64.gt_u (local.get $size)
                  (i64.add (i64.const 0x7fffffffffffffff) (i64.extend_i32_u (local.get $negative))))
      (then (call $fail_number (local.get $text))))
    (select
      (i64.sub (i64.const 0) (local.get $size))
      (local.get $size)
      (local.get $negative)))

  ;; Prints a number and a line end.
  (func $print (param $number i64)
    (local $rest i64)
    (local $at i32)
    (local.set $at (i32.const 96))
    ;; Unsigned from here on: the smallest number is the only one without a positive twin.
    (local.set $rest
      (select
        (i64.sub (i64.const 0) (local.get $number))
        (local.get $number)
        (i64.lt_s (local.get $number) (i64.const 0))))
    (loop $each
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $rest) (i64.const 10)))))
      (local.set $rest (i64.div_u (local.get $rest) (i64.const 10)))
      (br_if $each (i64.ne (local.get $rest) (i64.const 0))))
    (if (i64.lt_s (local.get $number) (i64.const 0))
      (then
        (local.set $at (i32.sub (local.get $at) (i32.const 1)))
        (i32.store8 (local.get $at) (i32.const 45))))
    ;; The line end lies right behind the last digit.
    (call $write (i32.const 1) (local.get $at) (i32.sub (i32.const 97) (local.get $at))))

  (func $fail_number (param $text i32)
    (local $end i32)
    (local.set $end (local.get $text))
    (block $found
      (loop $each
        (br_if $found (i32.eqz (i32.load8_u (local.get $end))))
        (local.set $end (i32.add (local.get $end) (i32.const 1)))
        (br $each)))
    (call $fail
      (i32.const 128) (i32.const 27)
      (local.get $text) (i32.sub (local.get $end) (local.get $text))))

  ;; Tells stderr a message and what it is about, and ends the program.
  (func $fail (param $message i32) (param $message_length i32) (param $about i32) (param $about_length i32)
    (call $write (i32.const 2) (local.get $message) (local.get $message_length))
    (call $write (i32.const 2) (local.get $about) (local.get $about_length))
    (call $write (i32.const 2) (i32.const 96) (i32.const 1))
    (call $proc_exit (i32.const 1))
    unreachable)

  ;; Writes it all: the host may take less than it is offered.
  (func $write (param $fd i32) (param $address i32) (param $length i32)
    (block $done
      (loop $again
        (br_if $done (i32.eqz (local.get $length)))
        (i32.store (i32.const 16) (local.get $address))
        (i32.store (i32.const 20) (local.get $length))
        ;; Nobody reads on: whatever is left has no one to go to.
        (br_if $done (call $fd_write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 8)))
        (local.set $address (i32.add (local.get $address) (i32.load (i32.const 8))))
        (local.set $length (i32.sub (local.get $length) (i32.load (i32.const 8))))
        (br $again)))))
