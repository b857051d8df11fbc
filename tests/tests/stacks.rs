//! Guests that use their stack to its end, at every entry into their code and at every depth at which the host may
//! enter it again. Each must end in a trap, and the gateway must go on.

use anyhow::{Result, ensure};
use bytes::Bytes;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, Properties, Version};

/// A guest reads how deep it is to go from the fuel that it is given: this much for each level, which it does not use
/// up.
const FUEL_FOR_A_LEVEL: u64 = 500_000;

/// Deeper than any stack.
const ENDLESS: u64 = 19_000;

const ENDLESS_CONST: &str = "(i32.const 10000000)";
const SHALLOW_CONST: &str = "(i32.const 0)";

/// A function that calls itself as often as its parameter says, and does `last` then.
fn recursion(name: &str, last: &str) -> String {
    format!(
        "(func ${name} (param i32) (result i32)
            (if (result i32) (i32.eqz (local.get 0)) (then {last} (i32.const 0))
                (else (i32.add (i32.const 1) (call ${name} (i32.sub (local.get 0) (i32.const 1)))))))"
    )
}

/// The definitions of a component that wants to call `$deep`: it recurses as deep as the fuel says, and then has the
/// host call `realloc`, which recurses as deep as `$inner` says, with a call of the host at each level.
fn definitions(inner: &str, exports: &str) -> String {
    let deep = recursion("level", "(call $bytes (i64.const 64) (i32.const 0))");
    format!(
        r#"(core module $memory
            (memory (export "memory") 1)
            (func $down (param i32) (result i32)
                (drop (memory.grow (i32.const 0)))
                (if (result i32) (i32.eqz (local.get 0)) (then (i32.const 0))
                    (else (i32.add (i32.const 1) (call $down (i32.sub (local.get 0) (i32.const 1)))))))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (drop (call $down {inner})) (i32.const 1024)))
        (core instance $memory (instantiate $memory))
        (alias core export $memory "memory" (core memory $mem))
        (alias core export $memory "realloc" (core func $realloc))
        (core func $bytes (canon lower (func $random "get-random-bytes") (memory $mem) (realloc $realloc)))
        (core func $fuel (canon lower (func $context "fuel-left")))
        (core module $main
            (import "" "bytes" (func $bytes (param i64 i32)))
            (import "" "fuel" (func $fuel (result i64)))
            {deep}
            (func $deep
                (drop (call $level (i32.wrap_i64 (i64.div_u (call $fuel) (i64.const {FUEL_FOR_A_LEVEL}))))))
            {exports})
        (core instance $main (instantiate $main
            (with "" (instance (export "bytes" (func $bytes)) (export "fuel" (func $fuel))))))"#
    )
}

const IMPORTS: &str = r#"
    (import "offload:guest/context@0.1.0" (instance $context (export "fuel-left" (func (result u64)))))
    (import "wasi:random/random@0.2.0" (instance $random
        (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#;

const COMMAND: &str = r#"
    (instance $command (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $command))"#;

fn parse(text: &str) -> Bytes {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")).into()
}

/// Deep in `run`.
fn in_run(inner: &str) -> Bytes {
    let body = definitions(inner, r#"(func (export "run") (result i32) (call $deep) (i32.const 0))"#);
    let run = r#"(func $run (result (result)) (canon lift (core func $main "run")))"#;
    parse(&format!("(component {IMPORTS} {body} {run} {COMMAND})"))
}

/// Deep in the start function of a component's module.
fn in_start(inner: &str) -> Bytes {
    let start = r#"(start $deep) (func (export "run") (result i32) (i32.const 0))"#;
    let run = r#"(func $run (result (result)) (canon lift (core func $main "run")))"#;
    parse(&format!("(component {IMPORTS} {} {run} {COMMAND})", definitions(inner, start)))
}

/// Deep in the destructor of a resource that another component has made.
fn in_destructor(inner: &str) -> Bytes {
    let owner = definitions(inner, r#"(func (export "drop") (param i32) (call $deep))"#);
    parse(&format!(
        r#"(component {IMPORTS}
            (component $owner
                (import "context" (instance $context (export "fuel-left" (func (result u64)))))
                (import "random" (instance $random
                    (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
                {owner}
                (type $own (resource (rep i32) (dtor (core func $main "drop"))))
                (core func $new (canon resource.new $own))
                (core module $maker
                    (import "" "new" (func $new (param i32) (result i32)))
                    (func (export "make") (result i32) (call $new (i32.const 1))))
                (core instance $maker (instantiate $maker (with "" (instance (export "new" (func $new))))))
                (export $thing "thing" (type $own))
                (func (export "make") (result (own $thing)) (canon lift (core func $maker "make"))))
            (instance $owner (instantiate $owner
                (with "context" (instance $context)) (with "random" (instance $random))))
            (component $user
                (import "owner" (instance $owner
                    (export "thing" (type $thing (sub resource)))
                    (export "make" (func (result (own $thing))))))
                (alias export $owner "thing" (type $thing))
                (core func $make (canon lower (func $owner "make")))
                (core func $drop (canon resource.drop $thing))
                (core module $main
                    (import "" "make" (func $make (result i32)))
                    (import "" "drop" (func $drop (param i32)))
                    (func (export "run") (result i32) (call $drop (call $make)) (i32.const 0)))
                (core instance $main (instantiate $main
                    (with "" (instance (export "make" (func $make)) (export "drop" (func $drop))))))
                (func (export "run") (result (result)) (canon lift (core func $main "run"))))
            (instance $user (instantiate $user (with "owner" (instance $owner))))
            (alias export $user "run" (func $run))
            {COMMAND})"#
    ))
}

/// Runs a guest that goes so deep.
async fn run(device: &mut Device, guest: &Bytes, depth: u64) -> Result<Message> {
    let fuel = ((depth + 1) * FUEL_FOR_A_LEVEL - 1).to_string();
    device.publish_with("inputCode/deep", guest.clone(), Properties::user(&[("fuel", &fuel)]), false).await?;
    device.message().await
}

fn is_stack_overflow(answer: &Message) -> bool {
    answer.property("error-kind") == Some("trap") && answer.text().contains("call stack exhausted")
}

/// How deep this guest can go before its stack is used up.
async fn deepest(device: &mut Device, guest: &Bytes) -> Result<u64> {
    let (mut fits, mut overflows) = (0, ENDLESS);
    while overflows - fits > 1 {
        let depth = (fits + overflows) / 2;
        let answer = run(device, guest, depth).await?;
        if answer.property("status") == Some("ok") {
            fits = depth;
        } else {
            ensure!(is_stack_overflow(&answer), "at {depth}: {}", answer.text());
            overflows = depth;
        }
    }
    ensure!(fits > 1_000, "only {fits} levels");
    Ok(fits)
}

#[tokio::test]
async fn realloc_that_recurses_is_a_trap_however_deep_its_caller_is() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "deep").await?;
    for guest in [in_run, in_start, in_destructor] {
        let deepest = deepest(&mut device, &guest(SHALLOW_CONST)).await?;
        let endless = guest(ENDLESS_CONST);
        for depth in [0, deepest / 2, deepest - 100, deepest - 10, deepest - 1, deepest, deepest + 1] {
            let answer = run(&mut device, &endless, depth).await?;
            assert!(is_stack_overflow(&answer), "at {depth} of {deepest}: {}", answer.text());
        }
    }
    Ok(())
}

#[tokio::test]
async fn post_return_that_recurses_is_a_trap() -> Result<()> {
    let deep = recursion("deep", "");
    let guest = parse(&format!(
        r#"(component
            (core module $main
                {deep}
                (func (export "run") (result i32) (i32.const 0))
                (func (export "post") (param i32) (drop (call $deep {ENDLESS_CONST}))))
            (core instance $main (instantiate $main))
            (func $run (result (result)) (canon lift (core func $main "run") (post-return (core func $main "post"))))
            {COMMAND})"#
    ));
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "deep").await?;
    let answer = device.ask("inputCode/deep", guest).await?;
    assert!(is_stack_overflow(&answer), "{}", answer.text());
    Ok(())
}

/// Both tiers: a baseline compiler's first answer is its own.
#[tokio::test]
async fn modules_that_recurse_are_traps_in_either_tier() -> Result<()> {
    // Each level writes to standard output, so that the last one has the host on its stack.
    let deep = r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func $deep (result i32)
            (drop (memory.grow (i32.const 0)))
            (drop (call $random (i32.const 64) (i32.const 1)))
            (drop (call $write (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 32)))
            (i32.add (call $deep) (i32.const 1)))"#;
    for tier in ["baseline = true\nbaseline_from = 0", "baseline = false"] {
        let deployment = Deployment::embedded(&format!("[compiler]\n{tier}\n")).await?;
        let mut device = deployment.device(Version::V5, "deep").await?;
        for entry in [
            r#"(func (export "_start") (drop (call $deep)))"#,
            r#"(func $start (drop (call $deep))) (start $start) (func (export "_start"))"#,
        ] {
            let answer = device.ask("inputCode/deep", parse(&format!("(module {deep} {entry})"))).await?;
            assert!(is_stack_overflow(&answer), "{tier}, {entry}: {}", answer.text());
        }
    }
    Ok(())
}
