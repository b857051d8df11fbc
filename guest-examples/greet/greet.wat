;; A component, by hand: a WASI 0.2 command that prints one line. Compilers write the same, at greater length.
(component
    ;; What it imports: a place to write to, and how.
    (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
    (alias export $errors "error" (type $error))
    (import "wasi:io/streams@0.2.0" (instance $streams
        (export "output-stream" (type $output-stream (sub resource)))
        (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
        (export "stream-error" (type $stream-error (eq $failure)))
        (export "[method]output-stream.blocking-write-and-flush" (func
            (param "self" (borrow $output-stream)) (param "contents" (list u8))
            (result (result (error $stream-error)))))))
    (alias export $streams "output-stream" (type $output-stream))
    (import "wasi:cli/stdout@0.2.0" (instance $stdout
        (export "get-stdout" (func (result (own $output-stream))))))

    ;; The memory is a module of its own, since the imports need it before the program can be instantiated.
    (core module $memory-module
        (memory (export "memory") 1)
        (data (i32.const 64) "hello from a component!\n"))
    (core instance $memory-instance (instantiate $memory-module))
    (alias core export $memory-instance "memory" (core memory $memory))
    (core func $get-stdout (canon lower (func $stdout "get-stdout")))
    (core func $write (canon lower
        (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))

    (core module $program-module
        (import "host" "get-stdout" (func $get-stdout (result i32)))
        ;; The stream, the bytes' address and number, where the result goes.
        (import "host" "write" (func $write (param i32 i32 i32 i32)))
        (func (export "run") (result i32)
            (call $write (call $get-stdout) (i32.const 64) (i32.const 24) (i32.const 0))
            ;; ok
            (i32.const 0)))
    (core instance $program (instantiate $program-module
        (with "host" (instance (export "get-stdout" (func $get-stdout)) (export "write" (func $write))))))

    (func $run (result (result)) (canon lift (core func $program "run")))
    (instance $command (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $command)))
