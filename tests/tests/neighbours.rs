//! What one client does to its neighbours: nothing.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use offload_tests::answer::error_line_problems;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Message, Options, Properties, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest;
use offload_tests::password_file::set_password;
use offload_tests::source::{COMMAND, legacy, program};

/// Endless guests for each worker.
const ENDLESS: usize = 4;
const SHORT: usize = 200;

/// Far more than all short requests need, on any machine: then the endless ones are ended.
const ENDLESS_MS: &str = "15000";

#[tokio::test]
async fn short_requests_overtake_endless_ones_on_every_worker() -> Result<()> {
    let configuration = "[workers]\ncount = 2\n[limits]\nfuel = 1_000_000_000_000\ncpu = \"60s\"\n";
    let deployment = Deployment::embedded(configuration).await?;
    let mut hog = deployment.device(Version::V5, "hog").await?;
    let mut short = deployment.device(Version::V311, "short").await?;
    let spin = guest::module("spin")?;

    // The first one is compiled before it can run.
    let fuel = Properties::user(&[("fuel", "1000")]);
    hog.publish_with("inputCode/hog", spin.clone(), fuel, false).await?;
    ensure!(error_line_problems(&hog.message().await?.payload, "fuel").is_empty());

    for _ in 0..ENDLESS {
        let timeout = Properties::user(&[("timeout-ms", ENDLESS_MS)]);
        hog.publish_with("inputCode/hog", spin.clone(), timeout, false).await?;
        hog.acknowledged().await?;
    }
    for number in 0..SHORT {
        let answer = short.ask("localCode/short", format!("{number} 1")).await?;
        assert_eq!(answer.text(), format!("{}\n", number + 1));
        assert!(hog.message_there().is_none(), "an endless guest ended before short request {number}");
    }
    for _ in 0..ENDLESS {
        let answer = hog.message().await?;
        let problems = error_line_problems(&answer.payload, "timeout");
        // Had they not been started, they would have `expired`.
        assert!(problems.is_empty(), "{problems:?}");
    }
    Ok(())
}

/// The most data segments that a module may have by default, which is the most that any may have.
const MAX_DATA_SEGMENTS: u32 = 100_000;

/// The modules of which each takes a compiler very long, or all memory.
fn compile_bombs(data_segments: u32) -> [(&'static str, Bytes); 3] {
    [
        ("data segments", bomb::data_segments(data_segments)),
        ("functions", bomb::empty_functions(500_000)),
        ("nested ifs", bomb::nested_ifs(20_000)),
    ]
}

#[tokio::test]
async fn compile_bombs_are_refused() -> Result<()> {
    let bombs = compile_bombs(MAX_DATA_SEGMENTS + 1);
    throw_bombs_beside_others(&Deployment::embedded("").await?, bombs, refused).await.map(drop)
}

#[tokio::test]
async fn compile_bombs_are_refused_on_mosquitto() -> Result<()> {
    let bombs = compile_bombs(MAX_DATA_SEGMENTS + 1);
    throw_bombs_beside_others(&Deployment::on_mosquitto("").await?, bombs, refused).await.map(drop)
}

/// With the checks before it as wide open as they go, it is the compile child's own limits that hold.
#[tokio::test]
async fn compile_bombs_that_reach_the_compiler_delay_nobody() -> Result<()> {
    let configuration = "[compiler]\ncpu = \"1s\"\nmemory = \"256MiB\"\nfunctions = 1_000_000\n\
                         data_segments = 100_000\nnesting = 65_536\nfunction_body = \"7MiB\"\n";
    let deployment = Deployment::embedded(configuration).await?;
    let bombs = compile_bombs(MAX_DATA_SEGMENTS / 2);
    let answered = throw_bombs_beside_others(&deployment, bombs, refused_or_ran).await?;
    // The bombs burn for a while: whoever is not delayed gets answers in between.
    assert!(answered > 3, "only {answered} requests were answered meanwhile");
    Ok(())
}

fn refused(answer: &Message) -> Vec<String> {
    error_line_problems(&answer.payload, "compile")
}

/// What the limits leave time for is compiled, and then does nothing.
fn refused_or_ran(answer: &Message) -> Vec<String> {
    if answer.property("status") == Some("ok") { Vec::new() } else { refused(answer) }
}

/// One client sends bombs, one after the other, while another one goes on working. Returns the number of its answers.
async fn throw_bombs_beside_others(
    deployment: &Deployment,
    bombs: [(&'static str, Bytes); 3],
    problems: impl Fn(&Message) -> Vec<String>,
) -> Result<usize> {
    let mut thrower = deployment.device(Version::V5, "thrower").await?;
    let mut bystander = deployment.device(Version::V311, "bystander").await?;
    let throwing = async {
        for (name, module) in bombs {
            let answer = thrower.ask("inputCode/thrower", module).await.context(name)?;
            let problems = problems(&answer);
            ensure!(problems.is_empty(), "{name}: {problems:?}");
        }
        Ok(())
    };
    tokio::pin!(throwing);
    let mut answered = 0;
    loop {
        tokio::select! {
            thrown = &mut throwing => {
                thrown?;
                return Ok(answered);
            }
            answer = bystander.ask("localCode/bystander", "3 5") => {
                assert_eq!(answer?.text(), "8\n");
                answered += 1;
            }
        }
    }
}

/// Devices of as many accounts: on an external broker each reply id is one.
async fn accounts<const N: usize>(deployment: &Deployment, names: [&str; N]) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for name in names {
        devices.push(deployment.device(Version::V5, name).await?);
    }
    Ok(devices)
}

/// Four users each send a module that takes a compiler seconds; what is compiled in no time does not wait for them.
#[tokio::test]
async fn a_small_module_does_not_wait_for_four_users_compiles() -> Result<()> {
    let configuration =
        "[compiler]\nconcurrency = 2\nbaseline = false\nnesting = 65_536\nfunction_body = \"7MiB\"\n";
    let deployment = Deployment::on_mosquitto(configuration).await?;
    let names = ["a", "b", "c", "d"];
    let mut compiling = accounts(&deployment, names).await?;
    for ((device, name), number) in compiling.iter().zip(names).zip(0..) {
        // Each of its own, or one would be compiled for all.
        device.publish(&format!("inputCode/{name}"), bomb::nested_ifs(40_000 + number)).await?;
    }
    let mut small = deployment.device(Version::V5, "small").await?;
    assert_eq!(small.ask("inputCode/small", guest::module("hello")?).await?.text(), "hello!\n");
    for (device, name) in compiling.iter_mut().zip(names) {
        assert!(device.message_there().is_none(), "{name} was answered first");
    }
    Ok(())
}

/// Two users' native programs sleep as long as they may; a third one's does not wait for them.
#[tokio::test]
async fn a_native_program_does_not_wait_for_others_sleep() -> Result<()> {
    let configuration = "native = \"native\"\n[sandbox]\nconcurrency = 2\n";
    let deployment = Deployment::on_mosquitto(configuration).await?;
    let names = ["a", "b"];
    let mut sleeping = accounts(&deployment, names).await?;
    for (device, name) in sleeping.iter().zip(names) {
        for _ in 0..4 {
            let sleeper = legacy("p", "", &program("sleep(600);"), COMMAND);
            device.publish(&format!("inputCode/{name}"), sleeper).await?;
        }
    }
    let mut third = deployment.device(Version::V5, "third").await?;
    let answer = third.ask("inputCode/third", legacy("p", "", &program("puts(\"awake\");"), COMMAND)).await?;
    assert_eq!(answer.text(), "awake\n");
    for (device, name) in sleeping.iter_mut().zip(names) {
        assert!(device.message_there().is_none(), "{name} was answered first");
    }
    Ok(())
}

/// Guests that one worker holds.
const SLOTS: usize = 8;

/// However many client ids without a name sleep, they are one account, which leaves slots for a user.
#[tokio::test]
async fn many_client_ids_leave_slots_for_a_user() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let passwords = folder.path().join("passwords");
    set_password(&passwords, "user", "user").await?;
    let gateway = Gateway::embedded(&format!(
        "[access]\npasswords = {passwords:?}\nanonymous = true\n\
         [workers]\ncount = 1\nslots = {SLOTS}\n[limits]\nwall = \"1h\"\n"
    ))
    .await?;
    let sleep = guest::module("sleep")?;
    // Compiled now, so that each begins at once.
    let mut first = Device::connect(gateway.address()?, Version::V5, "first").await?;
    first.subscribe("result/first").await?;
    assert_eq!(first.ask("inputCode/first", sleep.clone()).await?.text(), "awake\n");
    let mut sleepers = Vec::new();
    for number in 0..2 * SLOTS {
        let id = format!("sleeper-{number}");
        let device = Device::connect(gateway.address()?, Version::V5, &id).await?;
        let forever = Properties::user(&[("arg", "3600000")]);
        device.publish_with(&format!("inputCode/{id}"), sleep.clone(), forever, false).await?;
        sleepers.push(device);
    }
    for sleeper in &mut sleepers {
        sleeper.acknowledged().await?;
    }
    let options = Options { credentials: Some(("user", "user")), ..Options::default() };
    let mut user = Device::connect_with(gateway.address()?, Version::V5, "user", options).await?;
    user.subscribe("result/user").await?;
    for number in 0..100 {
        let answer = user.ask("localCode/user", format!("{number} 1")).await?;
        assert_eq!(answer.text(), format!("{}\n", number + 1));
    }
    Ok(())
}

/// Valid modules, written byte by byte: as text they would take the assembler as long as the compiler.
mod bomb {
    use bytes::Bytes;

    const TYPE: u8 = 1;
    const FUNCTION: u8 = 3;
    const MEMORY: u8 = 5;
    const EXPORT: u8 = 7;
    const CODE: u8 = 10;
    const DATA: u8 = 11;

    /// `[] -> []`
    const NOTHING: [u8; 4] = [1, 0x60, 0, 0];
    /// No locals, `end`.
    const EMPTY_BODY: [u8; 3] = [2, 0, 0x0b];

    /// Each takes code: what lies behind a memory's end is no part of the image that it begins with.
    pub fn data_segments(count: u32) -> Bytes {
        let mut segments = number(count);
        for _ in 0..count {
            // Into memory 0 at `i32.const 65536`: one byte.
            segments.extend([0, 0x41, 0x80, 0x80, 0x04, 0x0b, 1, 0]);
        }
        module(&[EMPTY_BODY.to_vec()], Some(segments))
    }

    pub fn empty_functions(count: u32) -> Bytes {
        module(&vec![EMPTY_BODY.to_vec(); count as usize], None)
    }

    pub fn nested_ifs(depth: usize) -> Bytes {
        let mut body = vec![0];
        for _ in 0..depth {
            // `i32.const 1`, `if` without result
            body.extend([0x41, 1, 0x04, 0x40]);
        }
        body.extend(std::iter::repeat_n(0x0b, depth + 1));
        module(&[prefixed(body)], None)
    }

    /// The first body is `_start`'s.
    fn module(bodies: &[Vec<u8>], data: Option<Vec<u8>>) -> Bytes {
        let count = number(bodies.len() as u32);
        let mut module = b"\0asm\x01\0\0\0".to_vec();
        let mut section = |id: u8, content: Vec<u8>| {
            module.push(id);
            module.extend(prefixed(content));
        };
        section(TYPE, NOTHING.to_vec());
        section(FUNCTION, [count.clone(), vec![0; bodies.len()]].concat());
        section(MEMORY, vec![1, 0, 1]);
        section(EXPORT, [&[2, 6], &b"_start"[..], &[0, 0, 6], b"memory", &[2, 0]].concat());
        section(CODE, [count, bodies.concat()].concat());
        if let Some(data) = data {
            section(DATA, data);
        }
        module.into()
    }

    fn prefixed(content: Vec<u8>) -> Vec<u8> {
        [number(content.len() as u32), content].concat()
    }

    /// Unsigned LEB128.
    fn number(mut value: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = (value & 0x7f) as u8;
            value >>= 7;
            if value == 0 {
                bytes.push(low);
                return bytes;
            }
            bytes.push(low | 0x80);
        }
    }
}
