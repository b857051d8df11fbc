//! What is known to go wrong with guests of wasmtime, each as a guest that tries it.

use anyhow::{Context, Result};
use bytes::Bytes;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Message, Properties, Version};

/// A command with the imports of WASI preview 1 that these guests call.
fn command(body: &str) -> Bytes {
    let text = format!(
        r#"(module
            (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open" (func $path_open
                (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "sock_shutdown" (func $sock_shutdown (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
            (memory (export "memory") 300)
            (func (export "_start") {body}))"#
    );
    wat::parse_str(text).expect("a valid guest").into()
}

/// Runs one guest with these limits on a gateway of its own.
async fn run(module: Bytes, limits: &[(&str, &str)]) -> Result<Message> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "hazard").await?;
    device.publish_with("inputCode/hazard", module, Properties::user(limits), false).await?;
    device.message().await
}

/// A guest that must end in an error of this kind.
async fn ends_in(kind: &str, module: Bytes, limits: &[(&str, &str)]) -> Result<()> {
    let answer = run(module, limits).await?;
    assert_eq!(answer.property("error-kind"), Some(kind), "{}", answer.text());
    Ok(())
}

/// A guest that exits with what a host call returned.
async fn returns(errno: u8, call: &str) -> Result<()> {
    let answer = run(command(&format!("(call $proc_exit {call})")), &[]).await?;
    let code: u8 = answer.property("exit-code").context("an exit code")?.parse()?;
    assert_eq!(code, errno, "{call}");
    Ok(())
}

const FAULT: u8 = 21;
const INVALID: u8 = 28;

#[tokio::test]
async fn randomness_costs_fuel() -> Result<()> {
    let flood = command("(loop (drop (call $random_get (i32.const 0) (i32.const 16000000))) (br 0))");
    ends_in("fuel", flood, &[("fuel", "100000")]).await
}

/// All calls of WASI preview 1 but `proc_exit`, and their parameters: `i` of 32 bits, `I` of 64.
const CALLS: [(&str, &str); 45] = [
    ("args_get", "ii"),
    ("args_sizes_get", "ii"),
    ("clock_res_get", "ii"),
    ("clock_time_get", "iIi"),
    ("environ_get", "ii"),
    ("environ_sizes_get", "ii"),
    ("fd_advise", "iIIi"),
    ("fd_allocate", "iII"),
    ("fd_close", "i"),
    ("fd_datasync", "i"),
    ("fd_fdstat_get", "ii"),
    ("fd_fdstat_set_flags", "ii"),
    ("fd_fdstat_set_rights", "iII"),
    ("fd_filestat_get", "ii"),
    ("fd_filestat_set_size", "iI"),
    ("fd_filestat_set_times", "iIIi"),
    ("fd_pread", "iiiIi"),
    ("fd_prestat_dir_name", "iii"),
    ("fd_prestat_get", "ii"),
    ("fd_pwrite", "iiiIi"),
    ("fd_read", "iiii"),
    ("fd_readdir", "iiiIi"),
    ("fd_renumber", "ii"),
    ("fd_seek", "iIii"),
    ("fd_sync", "i"),
    ("fd_tell", "ii"),
    ("fd_write", "iiii"),
    ("path_create_directory", "iii"),
    ("path_filestat_get", "iiiii"),
    ("path_filestat_set_times", "iiiiIIi"),
    ("path_link", "iiiiiii"),
    ("path_open", "iiiiiIIii"),
    ("path_readlink", "iiiiii"),
    ("path_remove_directory", "iii"),
    ("path_rename", "iiiiii"),
    ("path_symlink", "iiiii"),
    ("path_unlink_file", "iii"),
    ("poll_oneoff", "iiii"),
    ("random_get", "ii"),
    ("sched_yield", ""),
    ("sock_accept", "iii"),
    ("sock_recv", "iiiiii"),
    ("sock_send", "iiiii"),
    ("sock_shutdown", "ii"),
    ("proc_raise", "i"),
];

#[tokio::test]
async fn no_call_in_a_loop_fills_the_log() -> Result<()> {
    let deployment = Deployment::embedded("").await?;
    let mut device = deployment.device(Version::V5, "hazard").await?;
    let before = deployment.gateway.log_bytes()?;
    for (name, parameters) in CALLS {
        let kind = |letter| if letter == 'i' { "i32" } else { "i64" };
        let types = parameters.chars().map(kind).collect::<Vec<_>>().join(" ");
        let values =
            parameters.chars().map(|letter| format!("({}.const 0)", kind(letter))).collect::<String>();
        let module = wat::parse_str(format!(
            r#"(module
                (import "wasi_snapshot_preview1" "{name}" (func $call (param {types}) (result i32)))
                (memory (export "memory") 1)
                (func (export "_start") (local $left i32)
                    (local.set $left (i32.const 2000))
                    (loop
                        (drop (call $call {values}))
                        (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#
        ))?;
        device.ask("inputCode/hazard", module).await?;
    }
    let logged = deployment.gateway.log_bytes()? - before;
    assert!(logged < 4_000, "{logged} bytes: {}", deployment.gateway.log());
    Ok(())
}

#[tokio::test]
async fn there_are_no_sockets() -> Result<()> {
    const BADF: u8 = 8;
    const NOTSOCK: u8 = 57;
    for (fd, errno) in [(0, NOTSOCK), (2, NOTSOCK), (3, BADF), (-1, BADF)] {
        returns(errno, &format!("(call $sock_shutdown (i32.const {fd}) (i32.const 1))")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_sleeper_is_woken_by_its_timeout() -> Result<()> {
    // A relative clock subscription of an hour, alone.
    let sleep = "(i64.store (i32.const 24) (i64.const 3600000000000))
                 (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))";
    ends_in("timeout", command(sleep), &[("timeout-ms", "100")]).await
}

#[tokio::test]
async fn a_loop_over_growth_ends() -> Result<()> {
    ends_in("memory", command("(loop (drop (memory.grow (i32.const 1))) (br 0))"), &[]).await?;
    ends_in("memory", command("(loop (drop (memory.grow (i32.const 65000))) (br 0))"), &[]).await
}

#[tokio::test]
async fn output_ends_at_its_limit_whatever_the_fuel() -> Result<()> {
    // One vector of all memory, again and again.
    let flood = "(i32.store (i32.const 4) (i32.const 19000000))
                 (loop (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))) (br 0))";
    ends_in("output", command(flood), &[]).await?;
    // Standard error is cut instead, and writing to it for ever ends like any loop.
    let noise = flood.replace("$fd_write (i32.const 1)", "$fd_write (i32.const 2)");
    ends_in("timeout", command(&noise), &[("timeout-ms", "300")]).await
}

#[tokio::test]
async fn writes_of_nothing_end_like_any_loop() -> Result<()> {
    let idle =
        "(loop (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 16))) (br 0))";
    ends_in("timeout", command(idle), &[("timeout-ms", "300")]).await
}

#[tokio::test]
async fn pointers_outside_of_memory_are_faults() -> Result<()> {
    let out = "(i32.const -8)";
    returns(FAULT, &format!("(call $random_get {out} (i32.const 16))")).await?;
    returns(FAULT, "(call $random_get (i32.const 0) (i32.const -1))").await?;
    returns(FAULT, &format!("(call $fd_write (i32.const 1) {out} (i32.const 1) (i32.const 0))")).await?;
    returns(FAULT, &format!("(call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) {out})")).await?;
    returns(FAULT, &format!("(call $fd_read (i32.const 0) {out} (i32.const 1) (i32.const 0))")).await?;
    returns(FAULT, &format!("(call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) {out})")).await?;
    returns(FAULT, &format!("(call $poll_oneoff {out} (i32.const 0) (i32.const 1) (i32.const 0))")).await?;
    returns(FAULT, &format!("(call $poll_oneoff (i32.const 0) {out} (i32.const 1) (i32.const 0))")).await
}

#[tokio::test]
async fn polls_are_bounded() -> Result<()> {
    let poll = "(call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 100000) (i32.const 0))";
    returns(INVALID, poll).await
}

#[tokio::test]
async fn paths_of_megabytes_are_not_copied() -> Result<()> {
    // ENOMEM: over what one host call may copy.
    returns(
        48,
        "(call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 19000000) (i32.const 0)
            (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0))",
    )
    .await
}

#[tokio::test]
async fn exit_codes_above_125_are_exit_codes() -> Result<()> {
    for code in ["126", "255"] {
        let answer = run(command(&format!("(call $proc_exit (i32.const {code}))")), &[]).await?;
        assert_eq!((answer.property("status"), answer.property("exit-code")), (Some("exit"), Some(code)));
    }
    Ok(())
}

#[tokio::test]
async fn memories_of_64_bits_are_refused() -> Result<()> {
    let module = wat::parse_str(r#"(module (memory i64 1) (func (export "_start")))"#)?;
    ends_in("malformed", module.into(), &[]).await
}

#[tokio::test]
async fn a_module_that_never_gets_to_its_start_ends() -> Result<()> {
    let module =
        wat::parse_str(r#"(module (func $init (loop (br 0))) (start $init) (func (export "_start")))"#)?;
    ends_in("fuel", module.into(), &[("fuel", "1000000")]).await
}

#[tokio::test]
async fn recursion_ends_in_a_trap() -> Result<()> {
    let module = wat::parse_str(r#"(module (func $deep (export "_start") (call $deep)))"#)?;
    ends_in("trap", module.into(), &[]).await
}

/// The first worker, which is asked first, has no slot left; the second one sleeps.
#[tokio::test]
async fn a_worker_that_is_full_of_sleepers_does_not_keep_requests_from_the_others() -> Result<()> {
    let deployment = Deployment::embedded("[workers]\ncount = 2\nslots = 1\n").await?;
    let mut sleeper = deployment.device(Version::V5, "sleeper").await?;
    let mut other = deployment.device(Version::V311, "other").await?;
    let sleep = "(i64.store (i32.const 24) (i64.const 3600000000000))
                 (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))";
    for ms in ["100", "20000"] {
        let timeout = Properties::user(&[("timeout-ms", ms)]);
        sleeper.publish_with("inputCode/sleeper", command(sleep), timeout, false).await?;
        if ms == "100" {
            sleeper.message().await?;
        }
    }
    for _ in 0..10 {
        assert_eq!(other.ask("localCode/other", "3 5").await?.text(), "8\n");
    }
    assert!(sleeper.message_there().is_none(), "the sleeper still sleeps");
    Ok(())
}

#[tokio::test]
async fn sleepers_leave_slots_for_others() -> Result<()> {
    let configuration = "[workers]\ncount = 1\nslots = 4\n";
    let deployment = Deployment::embedded(configuration).await?;
    let mut sleeper = deployment.device(Version::V5, "sleeper").await?;
    let mut other = deployment.device(Version::V311, "other").await?;
    let sleep = "(i64.store (i32.const 24) (i64.const 3600000000000))
                 (drop (call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))";
    let timeout = |ms| Properties::user(&[("timeout-ms", ms)]);
    // Compiled until it has run: what waits for a compiler is queued when that is done, in any order.
    let mut kind = None;
    while kind.as_deref() != Some("timeout") {
        sleeper.publish_with("inputCode/sleeper", command(sleep), timeout("100"), false).await?;
        kind = sleeper.message().await?.property("error-kind").map(str::to_owned);
    }
    for ms in ["3000", "3000", "1000", "1000"] {
        sleeper.publish_with("inputCode/sleeper", command(sleep), timeout(ms), false).await?;
    }
    assert_eq!(other.ask("localCode/other", "3 5").await?.text(), "8\n");
    assert!(sleeper.message_there().is_none(), "the sleepers still sleep");
    // Half of the slots are one client's at the most: two sleep, and two never start.
    for kind in ["expired", "expired", "timeout", "timeout"] {
        assert_eq!(sleeper.message().await?.property("error-kind"), Some(kind));
    }
    Ok(())
}
