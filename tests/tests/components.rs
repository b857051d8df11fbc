//! Components: WASI 0.2 commands, and what goes wrong with them, each as a guest that tries it.

use anyhow::{Context, Result};
use bytes::Bytes;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, Properties, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest::digest;
use offload_tests::{built, envelope};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A command with the imports that these guests call. `$main`'s result is that of `wasi:cli/run`: 0 is success.
fn command(body: &str) -> Bytes {
    parse(&command_text(body))
}

fn parse(text: &str) -> Bytes {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")).into()
}

fn command_text(body: &str) -> String {
    format!(
        r#"(component
            (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
            (alias export $errors "error" (type $error))
            (import "wasi:io/poll@0.2.0" (instance $polls
                (export "pollable" (type $pollable (sub resource)))
                (export "[method]pollable.block" (func (param "self" (borrow $pollable))))
                (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
            (alias export $polls "pollable" (type $pollable))
            (import "wasi:io/streams@0.2.0" (instance $streams
                (export "output-stream" (type $output (sub resource)))
                (export "input-stream" (type $input (sub resource)))
                (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
                (export "stream-error" (type $stream-error (eq $failure)))
                (export "[method]input-stream.read" (func
                    (param "self" (borrow $input)) (param "len" u64) (result (result (list u8) (error $stream-error)))))
                (export "[method]output-stream.write" (func
                    (param "self" (borrow $output)) (param "contents" (list u8))
                    (result (result (error $stream-error)))))))
            (alias export $streams "output-stream" (type $output))
            (alias export $streams "input-stream" (type $input))
            (import "wasi:cli/stdin@0.2.0" (instance $stdin (export "get-stdin" (func (result (own $input))))))
            (import "wasi:cli/stdout@0.2.0" (instance $stdout (export "get-stdout" (func (result (own $output))))))
            (import "wasi:cli/stderr@0.2.0" (instance $stderr (export "get-stderr" (func (result (own $output))))))
            (import "wasi:cli/exit@0.2.12" (instance $exits
                (export "exit" (func (param "status" (result))))
                (export "exit-with-code" (func (param "status-code" u8)))))
            (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
                (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
            (import "wasi:random/random@0.2.0" (instance $random
                (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
            (import "wasi:random/insecure@0.2.0" (instance $insecure
                (export "get-insecure-random-bytes" (func (param "len" u64) (result (list u8))))))

            (core module $libc-module
                (memory (export "memory") 32)
                ;; One result at a time is all that these guests hold.
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
            (core instance $libc (instantiate $libc-module))
            (alias core export $libc "memory" (core memory $memory))
            (alias core export $libc "realloc" (core func $realloc))
            (core func $get-stdin (canon lower (func $stdin "get-stdin")))
            (core func $get-stdout (canon lower (func $stdout "get-stdout")))
            (core func $get-stderr (canon lower (func $stderr "get-stderr")))
            (core func $read (canon lower (func $streams "[method]input-stream.read")
                (memory $memory) (realloc $realloc)))
            (core func $write (canon lower (func $streams "[method]output-stream.write") (memory $memory)))
            (core func $exit (canon lower (func $exits "exit")))
            (core func $exit-with-code (canon lower (func $exits "exit-with-code")))
            (core func $sleep (canon lower (func $clock "subscribe-duration")))
            (core func $block (canon lower (func $polls "[method]pollable.block")))
            (core func $poll (canon lower (func $polls "poll") (memory $memory) (realloc $realloc)))
            (core func $get-random (canon lower (func $random "get-random-bytes")
                (memory $memory) (realloc $realloc)))
            (core func $get-insecure (canon lower (func $insecure "get-insecure-random-bytes")
                (memory $memory) (realloc $realloc)))
            (core module $main-module
                (import "libc" "memory" (memory 1))
                (import "wasi" "get-stdin" (func $get-stdin (result i32)))
                (import "wasi" "get-stdout" (func $get-stdout (result i32)))
                (import "wasi" "get-stderr" (func $get-stderr (result i32)))
                (import "wasi" "read" (func $read (param i32 i64 i32)))
                (import "wasi" "write" (func $write (param i32 i32 i32 i32)))
                (import "wasi" "exit" (func $exit (param i32)))
                (import "wasi" "exit-with-code" (func $exit-with-code (param i32)))
                (import "wasi" "sleep" (func $sleep (param i64) (result i32)))
                (import "wasi" "block" (func $block (param i32)))
                (import "wasi" "poll" (func $poll (param i32 i32 i32)))
                (import "wasi" "get-random" (func $get-random (param i64 i32)))
                (import "wasi" "get-insecure" (func $get-insecure (param i64 i32)))
                (data (i32.const 1024) "hello from a component\0a")
                (func $main (export "main") (result i32) (local $stream i32) (local $n i32)
                    {body}))
            (core instance $main (instantiate $main-module
                (with "libc" (instance $libc))
                (with "wasi" (instance
                    (export "get-stdin" (func $get-stdin))
                    (export "get-stdout" (func $get-stdout))
                    (export "get-stderr" (func $get-stderr))
                    (export "read" (func $read))
                    (export "write" (func $write))
                    (export "exit" (func $exit))
                    (export "exit-with-code" (func $exit-with-code))
                    (export "sleep" (func $sleep))
                    (export "block" (func $block))
                    (export "poll" (func $poll))
                    (export "get-random" (func $get-random))
                    (export "get-insecure" (func $get-insecure))))))
            (func $run (result (result)) (canon lift (core func $main "main")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#
    )
}

/// The least of a command, with a core function of this body and these imports of the component before it.
fn small(imports: &str, fields: &str, body: &str) -> Bytes {
    parse(&format!(
        r#"(component {imports}
            (core module $module {fields} (func (export "main") (result i32) {body}))
            (core instance $main (instantiate $module))
            (func $run (result (result)) (canon lift (core func $main "main")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#
    ))
}

const HELLO: &str =
    "(call $write (call $get-stdout) (i32.const 1024) (i32.const 23) (i32.const 0)) (i32.const 0)";

/// A pollable of an hour, blocked on.
const SLEEP: &str = "(call $block (call $sleep (i64.const 3600000000000))) (i32.const 0)";

/// Runs one guest with these properties on a gateway of this configuration.
async fn run_on(configuration: &str, guest: Bytes, properties: &[(&str, &str)]) -> Result<Message> {
    let deployment = Deployment::embedded(configuration).await?;
    let mut device = deployment.device(Version::V5, "component").await?;
    device.publish_with("inputCode/component", guest, Properties::user(properties), false).await?;
    device.message().await
}

async fn run(guest: Bytes, properties: &[(&str, &str)]) -> Result<Message> {
    run_on("", guest, properties).await
}

/// A guest that must end in an error of this kind, with a message that contains these words.
async fn ends_in(kind: &str, words: &str, guest: Bytes, properties: &[(&str, &str)]) -> Result<()> {
    failed(&run(guest, properties).await?, kind, words);
    Ok(())
}

fn failed(answer: &Message, kind: &str, words: &str) {
    assert_eq!(answer.property("error-kind"), Some(kind), "{}", answer.text());
    assert!(answer.text().contains(words), "{}", answer.text());
}

#[tokio::test]
async fn a_component_runs_in_every_form() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "forms").await?;
    let guest = command(HELLO);
    assert_eq!(device.ask("inputCode/forms", guest.clone()).await?.text(), "hello from a component\n");
    let module = envelope::bytes(&guest);
    let request = json!({"id": "a", "module": module}).to_string();
    let answer = envelope::read(&device.ask("inputCode/forms", request).await?)?;
    assert_eq!(answer["status"], "ok", "{answer}");
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"hello from a component\n");
    Ok(())
}

#[tokio::test]
async fn a_component_is_a_program_of_the_configuration() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("hello.wat");
    std::fs::write(&file, command_text(HELLO))?;
    let file = file.to_str().context("a path is not UTF-8")?;
    let configuration = format!("[[program]]\nname = \"hello\"\nfile = \"{file}\"\ndefault = true\n");
    let deployment = Deployment::embedded(&configuration).await?;
    let mut device = deployment.device(Version::V311, "default").await?;
    assert_eq!(device.ask("localCode/default", "").await?.text(), "hello from a component\n");
    Ok(())
}

#[tokio::test]
async fn standard_input_is_read_to_its_end() -> Result<()> {
    // What one read returns is written out; the next one finds the stream closed.
    let echo = "(call $read (local.tee $stream (call $get-stdin)) (i64.const -1) (i32.const 0))
                (call $write (call $get-stdout) (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 16))
                (call $read (local.get $stream) (i64.const 1) (i32.const 0))
                (i32.sub (i32.load8_u (i32.const 0)) (i32.load8_u (i32.const 4)))";
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "echo").await?;
    let request = json!({"module": envelope::bytes(command(echo)), "stdin": envelope::bytes("to and fro")});
    let answer = envelope::read(&device.ask("inputCode/echo", request.to_string()).await?)?;
    assert_eq!(answer["status"], "ok", "{answer}");
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"to and fro");
    Ok(())
}

#[tokio::test]
async fn every_way_to_exit_has_its_code() -> Result<()> {
    for (guest, code) in [
        (command("(i32.const 0)"), "0"),
        (command("(i32.const 1)"), "1"),
        (command("(call $exit (i32.const 1)) unreachable"), "1"),
        (command("(call $exit (i32.const 0)) unreachable"), "0"),
        (command("(call $exit-with-code (i32.const 200)) unreachable"), "200"),
    ] {
        let answer = run(guest, &[]).await?;
        let status = if code == "0" { "ok" } else { "exit" };
        let found = (answer.property("status"), answer.property("exit-code"));
        assert_eq!(found, (Some(status), Some(code)), "{}", answer.text());
    }
    Ok(())
}

#[tokio::test]
async fn a_trap_says_why_and_where() -> Result<()> {
    ends_in("trap", "unreachable", command("unreachable"), &[]).await?;
    ends_in("trap", "main", command("unreachable"), &[]).await
}

#[tokio::test]
async fn loops_end_by_fuel_and_by_time() -> Result<()> {
    ends_in("fuel", "1000000", command("(loop (br 0)) (i32.const 0)"), &[("fuel", "1000000")]).await?;
    ends_in("timeout", "", command(SLEEP), &[("timeout-ms", "200")]).await
}

#[tokio::test]
async fn a_busy_poll_ends_like_any_loop() -> Result<()> {
    let busy = "(i32.store (i32.const 0) (call $sleep (i64.const 0)))
                (loop (call $poll (i32.const 0) (i32.const 1) (i32.const 16)) (br 0)) (i32.const 0)";
    ends_in("timeout", "", command(busy), &[("timeout-ms", "200")]).await?;
    let fuel = [("fuel", "10000")];
    ends_in("fuel", "", command(busy), &fuel).await
}

#[tokio::test]
async fn a_list_of_pollables_longer_than_a_call_may_copy_is_a_trap() -> Result<()> {
    let many = "(call $poll (i32.const 0) (i32.const 100000) (i32.const 16)) (i32.const 0)";
    ends_in("trap", "", command(many), &[]).await
}

#[tokio::test]
async fn randomness_costs_fuel_and_is_bounded() -> Result<()> {
    for call in ["$get-random", "$get-insecure"] {
        let flood = format!("(loop (call {call} (i64.const 1000000) (i32.const 0)) (br 0)) (i32.const 0)");
        ends_in("fuel", "", command(&flood), &[("fuel", "1000000")]).await?;
        let huge = format!("(call {call} (i64.const 100000000000) (i32.const 0)) (i32.const 0)");
        ends_in("trap", "random bytes", command(&huge), &[]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn output_ends_at_its_limit() -> Result<()> {
    let flood = "(local.set $stream (call $get-stdout))
                 (loop (call $write (local.get $stream) (i32.const 0) (i32.const 60000) (i32.const 0)) (br 0))
                 (i32.const 0)";
    ends_in("output", "stdout", command(flood), &[]).await?;
    let noise = flood.replace("$get-stdout", "$get-stderr");
    ends_in("timeout", "", command(&noise), &[("timeout-ms", "300")]).await?;
    // Each write is no longer than one call may copy.
    let large =
        "(call $write (call $get-stdout) (i32.const 0) (i32.const 2000000) (i32.const 0)) (i32.const 0)";
    ends_in("trap", "", command(large), &[]).await
}

#[tokio::test]
async fn hoarded_resources_are_bounded() -> Result<()> {
    let pollables = "(loop (drop (call $sleep (i64.const 3600000000000))) (br 0)) (i32.const 0)";
    ends_in("trap", "", command(pollables), &[]).await?;
    let streams = "(loop (drop (call $get-stdout)) (br 0)) (i32.const 0)";
    ends_in("trap", "", command(streams), &[]).await
}

#[tokio::test]
async fn growth_ends_at_the_limit_of_all_memories_together() -> Result<()> {
    let grow = "(loop (drop (memory.grow (i32.const 1))) (br 0)) (i32.const 0)";
    ends_in("memory", "", command(grow), &[("memory", "4194304")]).await?;
    // Two instances with 3 MiB each: either alone would do.
    let two = twice("(memory 48)");
    let memories = "[compiler]\nmemories = 2\n";
    let answer = run_on(memories, two.clone(), &[("memory", "4194304")]).await?;
    failed(&answer, "memory", "6291456");
    let answer = run_on(memories, two, &[]).await?;
    assert_eq!(answer.property("status"), Some("ok"), "{}", answer.text());
    Ok(())
}

/// A component that makes two instances of a core module with these fields.
fn twice(fields: &str) -> Bytes {
    parse(&format!(
        r#"(component
            (core module $half {fields} (func (export "main") (result i32) (i32.const 0)))
            (core instance (instantiate $half))
            (core instance $main (instantiate $half))
            (func $run (result (result)) (canon lift (core func $main "main")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#
    ))
}

/// A program that adds a line to `log` and becomes the compile child.
fn counting_compiler(folder: &Path, log: &Path) -> Result<PathBuf> {
    let compiler = folder.join("compiler");
    let (log, program) = (log.display(), built::program("offload-rt")?);
    let script = format!("#!/bin/sh\necho >>'{log}'\nexec '{}' \"$@\"\n", program.display());
    std::fs::write(&compiler, script)?;
    std::fs::set_permissions(&compiler, std::fs::Permissions::from_mode(0o700))?;
    Ok(compiler)
}

#[tokio::test]
async fn what_does_not_fit_into_a_slot_is_refused_once_and_for_all() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let compiler = counting_compiler(folder.path(), &log)?;
    let configuration =
        format!("[compiler]\nglobals = 100000\nprogram = {:?}\n", compiler.display().to_string());
    let deployment = Deployment::embedded(&configuration).await?;
    let compiles = || std::fs::read(&log).map(|lines| lines.len());
    let mut device = deployment.device(Version::V5, "large").await?;
    device.ask("inputCode/large", command(HELLO)).await?;
    let before = compiles()?;
    // Each passes all counts: a module counts once, however often it is instantiated.
    let memories = twice("(memory 1)");
    let tables = twice(&"(table 1 funcref)".repeat(3));
    let globals = "(global (mut i64) (i64.const 0))".repeat(70_000);
    let globals = parse(&format!("(module {globals} (func (export \"_start\")))"));
    let refused = [
        (&memories, "(compiler.memories): The component transitively contains 2 Wasm linear memories"),
        (&tables, "(compiler.component_tables): The component transitively contains 6 tables"),
        (&globals, "1048576 bytes"),
    ];
    for _ in 0..2 {
        for (guest, words) in refused {
            let answer = device.ask("inputCode/large", guest.clone()).await?;
            failed(&answer, "compile", "does not fit into a slot");
            failed(&answer, "compile", words);
        }
    }
    assert_eq!(compiles()? - before, refused.len(), "each is compiled once");
    for (guest, _) in refused {
        let request = json!({"digest": digest(guest).await?});
        let answer = envelope::read(&device.ask("inputCode/large", request.to_string()).await?)?;
        assert_eq!(envelope::error_kind(&answer), "not-found", "what is refused is not kept: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn slots_that_became_smaller_refuse_what_was_compiled_before() -> Result<()> {
    let guest = twice("(memory 1)");
    let gateway = Gateway::embedded("[compiler]\nmemories = 2\n").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "shrunk").await?;
    device.subscribe("result/shrunk").await?;
    assert_eq!(device.ask("inputCode/shrunk", guest.clone()).await?.property("status"), Some("ok"));
    let gateway = gateway.restart(&["--listen", "127.0.0.1:0"], "").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "shrunk").await?;
    device.subscribe("result/shrunk").await?;
    failed(&device.ask("inputCode/shrunk", guest).await?, "compile", "2 Wasm linear memories");
    Ok(())
}

#[tokio::test]
async fn growth_that_the_module_itself_forbids_is_not_counted() -> Result<()> {
    let bounded = small(
        "",
        "(memory 1 2)",
        "(local i32) (loop (drop (memory.grow (i32.const 8)))
            (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 1000))))
         (memory.grow (i32.const 1)) (i32.const 1) (i32.ne)",
    );
    let answer = run(bounded, &[("memory", "1048576")]).await?;
    assert_eq!(answer.property("status"), Some("ok"), "{}", answer.text());
    Ok(())
}

#[tokio::test]
async fn there_is_no_network() -> Result<()> {
    let guest = parse(
        r#"(component
            (import "wasi:sockets/network@0.2.0" (instance $networks
                (export "network" (type (sub resource)))
                (type $codes (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
                    "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
                    "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused"
                    "connection-reset" "connection-aborted" "datagram-too-large" "name-unresolvable"
                    "temporary-resolver-failure" "permanent-resolver-failure"))
                (export "error-code" (type (eq $codes)))
                (type $families (enum "ipv4" "ipv6"))
                (export "ip-address-family" (type (eq $families)))))
            (alias export $networks "network" (type $network))
            (alias export $networks "error-code" (type $error-code))
            (alias export $networks "ip-address-family" (type $family))
            (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
            (alias export $tcp "tcp-socket" (type $tcp-socket))
            (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $tcp-create
                (export "create-tcp-socket" (func (param "address-family" $family)
                    (result (result (own $tcp-socket) (error $error-code)))))))
            (import "wasi:sockets/udp@0.2.0" (instance $udp (export "udp-socket" (type (sub resource)))))
            (alias export $udp "udp-socket" (type $udp-socket))
            (import "wasi:sockets/udp-create-socket@0.2.0" (instance $udp-create
                (export "create-udp-socket" (func (param "address-family" $family)
                    (result (result (own $udp-socket) (error $error-code)))))))
            (import "wasi:sockets/instance-network@0.2.0" (instance $default
                (export "instance-network" (func (result (own $network))))))
            (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $names
                (export "resolve-address-stream" (type $addresses (sub resource)))
                (export "resolve-addresses" (func (param "network" (borrow $network)) (param "name" string)
                    (result (result (own $addresses) (error $error-code)))))))
            (import "wasi:cli/exit@0.2.12" (instance $exits
                (export "exit-with-code" (func (param "status-code" u8)))))
            (core module $libc-module (memory (export "memory") 1))
            (core instance $libc (instantiate $libc-module))
            (alias core export $libc "memory" (core memory $memory))
            (core func $tcp-socket (canon lower (func $tcp-create "create-tcp-socket") (memory $memory)))
            (core func $udp-socket (canon lower (func $udp-create "create-udp-socket") (memory $memory)))
            (core func $network (canon lower (func $default "instance-network")))
            (core func $resolve (canon lower (func $names "resolve-addresses") (memory $memory)))
            (core func $exit (canon lower (func $exits "exit-with-code")))
            (core module $main-module
                (import "libc" "memory" (memory 1))
                (import "wasi" "tcp-socket" (func $tcp-socket (param i32 i32)))
                (import "wasi" "udp-socket" (func $udp-socket (param i32 i32)))
                (import "wasi" "network" (func $network (result i32)))
                (import "wasi" "resolve" (func $resolve (param i32 i32 i32 i32)))
                (import "wasi" "exit" (func $exit (param i32)))
                (data (i32.const 16) "localhost")
                ;; Exits with how many calls it made until one did not fail with the code that it expects.
                (func $failed (param $calls i32) (param $code i32)
                    (if (i32.eqz (i32.and
                            (i32.eq (i32.load8_u (i32.const 0)) (i32.const 1))
                            (i32.eq (i32.load8_u (i32.const 4)) (local.get $code))))
                        (then (call $exit (local.get $calls)))))
                (func (export "main") (result i32)
                    (call $tcp-socket (i32.const 0) (i32.const 0))
                    (call $failed (i32.const 1) (i32.const 1))
                    (call $tcp-socket (i32.const 1) (i32.const 0))
                    (call $failed (i32.const 2) (i32.const 1))
                    (call $udp-socket (i32.const 0) (i32.const 0))
                    (call $failed (i32.const 3) (i32.const 1))
                    (call $udp-socket (i32.const 1) (i32.const 0))
                    (call $failed (i32.const 4) (i32.const 1))
                    (call $resolve (call $network) (i32.const 16) (i32.const 9) (i32.const 0))
                    (call $failed (i32.const 5) (i32.const 20))
                    (i32.const 0)))
            (core instance $main (instantiate $main-module
                (with "libc" (instance $libc))
                (with "wasi" (instance
                    (export "tcp-socket" (func $tcp-socket))
                    (export "udp-socket" (func $udp-socket))
                    (export "network" (func $network))
                    (export "resolve" (func $resolve))
                    (export "exit" (func $exit))))))
            (func $run (result (result)) (canon lift (core func $main "main")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#,
    );
    let answer = run(guest, &[]).await?;
    assert_eq!(answer.property("exit-code"), Some("0"), "{}", answer.text());
    Ok(())
}

/// Prints the reply id and the request's id, and ends with how the time and the fuel that are left compare to these.
fn asks_for_its_context(nanoseconds: u64, fuel: u64) -> Bytes {
    parse(&format!(
        r#"(component
            (import "offload:guest/context@0.1.0" (instance $context
                (export "reply-id" (func (result string)))
                (export "request-id" (func (result (option string))))
                (export "time-left" (func (result u64)))
                (export "fuel-left" (func (result u64)))))
            (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
            (alias export $errors "error" (type $error))
            (import "wasi:io/streams@0.2.0" (instance $streams
                (export "output-stream" (type $output (sub resource)))
                (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
                (export "stream-error" (type $stream-error (eq $failure)))
                (export "[method]output-stream.write" (func
                    (param "self" (borrow $output)) (param "contents" (list u8))
                    (result (result (error $stream-error)))))))
            (alias export $streams "output-stream" (type $output))
            (import "wasi:cli/stdout@0.2.0" (instance $stdout (export "get-stdout" (func (result (own $output))))))
            (core module $libc-module
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
            (core instance $libc (instantiate $libc-module))
            (alias core export $libc "memory" (core memory $memory))
            (alias core export $libc "realloc" (core func $realloc))
            (core func $reply-id (canon lower (func $context "reply-id") (memory $memory) (realloc $realloc)))
            (core func $request-id (canon lower (func $context "request-id") (memory $memory) (realloc $realloc)))
            (core func $time-left (canon lower (func $context "time-left")))
            (core func $fuel-left (canon lower (func $context "fuel-left")))
            (core func $get-stdout (canon lower (func $stdout "get-stdout")))
            (core func $write (canon lower (func $streams "[method]output-stream.write") (memory $memory)))
            (core module $main-module
                (import "libc" "memory" (memory 1))
                (import "host" "reply-id" (func $reply-id (param i32)))
                (import "host" "request-id" (func $request-id (param i32)))
                (import "host" "time-left" (func $time-left (result i64)))
                (import "host" "fuel-left" (func $fuel-left (result i64)))
                (import "host" "get-stdout" (func $get-stdout (result i32)))
                (import "host" "write" (func $write (param i32 i32 i32 i32)))
                (func (export "main") (result i32) (local $stdout i32) (local $fuel i64)
                    (local.set $stdout (call $get-stdout))
                    (local.set $fuel (call $fuel-left))
                    (call $reply-id (i32.const 0))
                    (call $write (local.get $stdout)
                        (i32.load (i32.const 0)) (i32.load (i32.const 4)) (i32.const 32))
                    (call $request-id (i32.const 0))
                    (if (i32.load8_u (i32.const 0)) (then
                        (call $write (local.get $stdout)
                            (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 32))))
                    (i32.eqz (i32.and
                        (i32.and
                            (i64.gt_u (call $time-left) (i64.const 0))
                            (i64.le_u (call $time-left) (i64.const {nanoseconds})))
                        (i32.and
                            (i64.lt_u (local.get $fuel) (i64.const {fuel}))
                            (i64.lt_u (call $fuel-left) (local.get $fuel)))))))
            (core instance $main (instantiate $main-module
                (with "libc" (instance $libc))
                (with "host" (instance
                    (export "reply-id" (func $reply-id))
                    (export "request-id" (func $request-id))
                    (export "time-left" (func $time-left))
                    (export "fuel-left" (func $fuel-left))
                    (export "get-stdout" (func $get-stdout))
                    (export "write" (func $write))))))
            (func $run (result (result)) (canon lift (core func $main "main")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $command)))"#
    ))
}

#[tokio::test]
async fn a_component_may_ask_about_its_request() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "curious").await?;
    let guest = asks_for_its_context(20_000_000_000, 1_000_000);
    let limits = Properties::user(&[("timeout-ms", "20000"), ("fuel", "1000000")]);
    device.publish_with("inputCode/curious", guest.clone(), limits, false).await?;
    let answer = device.message().await?;
    assert_eq!((answer.text().as_str(), answer.property("exit-code")), ("curious", Some("0")));
    let module = envelope::bytes(&guest);
    let request = json!({"id": "-7", "module": module, "fuel": 1_000_000, "timeout_ms": 20_000});
    let answer = envelope::read(&device.ask("inputCode/curious", request.to_string()).await?)?;
    assert_eq!(envelope::bytes_of(&answer, "stdout")?, b"curious-7", "{answer}");
    assert_eq!(answer["exit_code"], 0, "{answer}");
    // More fuel than the guest expects.
    let request = json!({"module": module, "fuel": 2_000_000, "timeout_ms": 20_000});
    let answer = envelope::read(&device.ask("inputCode/curious", request.to_string()).await?)?;
    assert_eq!(answer["exit_code"], 1, "{answer}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_imported_is_named() -> Result<()> {
    let http = r#"(import "example:shop/prices" (instance (export "all" (func))))"#;
    ends_in("malformed", "example:shop/prices", small(http, "", "(i32.const 0)"), &[]).await?;
    for (interface, what) in [
        ("wasi:http/handler@0.2.0", "`wasi:http`"),
        ("wasi:cli/stdin@0.3.0", "WASI 0.3"),
        ("wasi:cli/stdin@0.2.0-rc-2023-12-05", "a pre-release of WASI 0.2"),
    ] {
        let unknown = format!(r#"(import "{interface}" (instance (export "handle" (func))))"#);
        let answer = run(small(&unknown, "", "(i32.const 0)"), &[]).await?;
        failed(&answer, "malformed", interface);
        failed(&answer, "malformed", what);
    }
    ends_in("malformed", "wasi:cli/run", parse("(component)"), &[]).await?;
    let mut cut = command(HELLO).to_vec();
    cut.truncate(cut.len() / 2);
    ends_in("malformed", "not valid wasm", cut.into(), &[]).await
}

#[tokio::test]
async fn a_component_that_is_not_valid_is_malformed() -> Result<()> {
    // What the engines do not have: types of WASI 0.3 are no valid wasm here, and the answer says which.
    let future = small("(type (future u8))", "", "(i32.const 0)");
    ends_in("malformed", "not valid wasm: `future` requires the component model async feature", future, &[])
        .await?;
    // A lift of a core function that has another type.
    let text = r#"(component
        (core module $module (func (export "main") (result i64) (i64.const 0)))
        (core instance $main (instantiate $module))
        (func $run (result (result)) (canon lift (core func $main "main")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#;
    ends_in("malformed", "not valid wasm", parse(text), &[]).await
}

#[tokio::test]
async fn a_run_of_another_type_is_malformed_before_anything_runs() -> Result<()> {
    for (core, lift) in [
        ("(result i32) (i32.const 0)", "(result u32)"),
        ("(param i32) (result i32) (i32.const 0)", "(param \"a\" u32) (result (result))"),
        ("", ""),
    ] {
        // Its start function would trap.
        let guest = parse(&format!(
            r#"(component
                (core module $module
                    (func $trap unreachable) (start $trap)
                    (func (export "main") {core}))
                (core instance $main (instantiate $module))
                (func $run {lift} (canon lift (core func $main "main")))
                (instance $command (export "run" (func $run)))
                (export "wasi:cli/run@0.2.0" (instance $command)))"#
        ));
        ends_in("malformed", "`run`", guest, &[]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn sleeping_components_leave_the_worker_to_others() -> Result<()> {
    let deployment = Deployment::embedded("[workers]\ncount = 1\nslots = 4\n").await?;
    let mut sleeper = deployment.device(Version::V5, "sleeper").await?;
    let mut other = deployment.device(Version::V311, "other").await?;
    let timeout = |ms| Properties::user(&[("timeout-ms", ms)]);
    // The first one is compiled before it can run.
    sleeper.publish_with("inputCode/sleeper", command(SLEEP), timeout("100"), false).await?;
    failed(&sleeper.message().await?, "timeout", "");
    sleeper.publish_with("inputCode/sleeper", command(SLEEP), timeout("3000"), false).await?;
    assert_eq!(other.ask("localCode/other", "3 5").await?.text(), "8\n");
    assert!(sleeper.message_there().is_none(), "the sleeper still sleeps");
    failed(&sleeper.message().await?, "timeout", "");
    Ok(())
}
