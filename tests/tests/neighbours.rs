//! What one client does to its neighbours: nothing.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use offload_tests::answer::error_line_problems;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Properties, Version};
use offload_tests::guest;

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
        assert!(problems.is_empty(), "{problems:?}");
        // They were not just waiting in a queue.
        let fuel: u64 = answer.property("fuel").context("no fuel in the answer")?.parse()?;
        assert!(fuel > 0);
    }
    Ok(())
}

/// The modules of which each takes a compiler very long, or all memory.
fn compile_bombs() -> [(&'static str, Bytes); 3] {
    [
        ("data segments", bomb::data_segments(50_000)),
        ("functions", bomb::empty_functions(500_000)),
        ("nested ifs", bomb::nested_ifs(20_000)),
    ]
}

#[tokio::test]
async fn compile_bombs_are_refused() -> Result<()> {
    throw_bombs_beside_others(&Deployment::embedded("").await?).await.map(drop)
}

#[tokio::test]
async fn compile_bombs_are_refused_on_mosquitto() -> Result<()> {
    throw_bombs_beside_others(&Deployment::on_mosquitto("").await?).await.map(drop)
}

/// With the checks before it as wide open as they go, it is the compile child's own limits that hold.
#[tokio::test]
async fn compile_bombs_that_reach_the_compiler_delay_nobody() -> Result<()> {
    let configuration = "[compiler]\ncpu = \"1s\"\nmemory = \"256MiB\"\nfunctions = 1_000_000\n\
                         data_segments = 100_000\nnesting = 65_536\nfunction_body = \"7MiB\"\n";
    let answered = throw_bombs_beside_others(&Deployment::embedded(configuration).await?).await?;
    // Each bomb burns for a while: whoever is not delayed gets answers in between.
    assert!(answered > 3, "only {answered} requests were answered meanwhile");
    Ok(())
}

/// One client sends bombs, one after the other, while another one goes on working. Returns the number of its answers.
async fn throw_bombs_beside_others(deployment: &Deployment) -> Result<usize> {
    let mut thrower = deployment.device(Version::V5, "thrower").await?;
    let mut bystander = deployment.device(Version::V311, "bystander").await?;
    let bombs = compile_bombs();
    let throwing = async {
        for (name, module) in bombs {
            let answer = thrower.ask("inputCode/thrower", module).await.context(name)?;
            let problems = error_line_problems(&answer.payload, "compile");
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

    pub fn data_segments(count: u32) -> Bytes {
        let mut segments = number(count);
        for _ in 0..count {
            // Into memory 0 at `i32.const 0`: one byte.
            segments.extend([0, 0x41, 0, 0x0b, 1, 0]);
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
