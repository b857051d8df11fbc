//! A large module's first answers come from baseline code, while its optimized code is on the way: sooner, and the
//! same.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use offload_tests::answer::envelope_problems;
use offload_tests::device::{Device, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest::{self, Guest};
use offload_tests::{built, envelope};
use serde_json::{Value, json};
use tempfile::TempDir;

/// What guests may use where their cases say nothing: soon used up by those that take what they can get.
const LIMITS: &str = "[limits]\nfuel = 2_000_000_000\nmemory = \"32MiB\"\n";

/// Their hash maps are seeded at random: they never take the same fuel twice.
const RANDOM: [&str; 2] = ["search", "word-count"];

/// A compiler whose optimized code is held back for as long as a file is there.
struct Held {
    folder: TempDir,
}

impl Held {
    fn new() -> Result<Held> {
        let held = Held { folder: TempDir::new()? };
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *--tier=optimized*) while [ -e {} ]; do /bin/sleep 0.02; done;; esac\nexec {} \"$@\"\n",
            held.file().display(),
            built::program("offload-rt")?.display(),
        );
        fs::write(held.script(), script)?;
        fs::set_permissions(held.script(), fs::Permissions::from_mode(0o755))?;
        Ok(held)
    }

    fn script(&self) -> PathBuf {
        self.folder.path().join("compiler")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hold")
    }

    /// A gateway with this compiler, which starts to hold now, and this many permits for it.
    async fn gateway(&self, concurrency: usize) -> Result<Gateway> {
        let gateway = Gateway::embedded(&format!(
            "{LIMITS}[compiler]\nprogram = {:?}\nbaseline_from = 0\nbackground = 100\nconcurrency = {concurrency}\nwall = \"1h\"\n",
            self.script()
        ))
        .await?;
        fs::write(self.file(), "")?;
        Ok(gateway)
    }

    fn let_go(&self) -> Result<()> {
        Ok(fs::remove_file(self.file())?)
    }
}

async fn device(gateway: &Gateway) -> Result<Device> {
    let mut device = Device::connect(gateway.address()?, Version::V5, "device").await?;
    device.subscribe("result/device").await?;
    Ok(device)
}

async fn ask(device: &mut Device, request: &Value) -> Result<Value> {
    envelope::read(&device.ask("inputCode/device", request.to_string()).await?)
}

/// Only these have two tiers.
fn modules() -> Result<Vec<Guest>> {
    let is_module = |guest: &Guest| guest.module[4..8] == [1, 0, 0, 0];
    Ok(guest::all()?.into_iter().filter(is_module).collect())
}

#[tokio::test]
async fn baseline_code_ends_as_optimized_code_does_and_takes_the_same_fuel() -> Result<()> {
    let held = Held::new()?;
    let baseline = held.gateway(100).await?;
    let optimized = Gateway::embedded(&format!("{LIMITS}[compiler]\nbaseline = false\n")).await?;
    let (mut on_baseline, mut on_optimized) = (device(&baseline).await?, device(&optimized).await?);
    let mut problems = Vec::new();
    for guest in modules()? {
        for case in &guest.cases {
            let request = json!({
                "module": envelope::bytes(&guest.module),
                "args": case.args,
                "env": case.env,
                "stdin": envelope::bytes(case.stdin()),
                "fuel": case.fuel,
                "memory": case.memory,
                "timeout_ms": case.timeout_ms,
                "reply": "envelope",
            });
            let request = without_nulls(request);
            let name = || format!("{}: {}", guest.name, case.name);
            let first = ask(&mut on_baseline, &request).await.with_context(name)?;
            let second = ask(&mut on_optimized, &request).await.with_context(name)?;
            let (fuel, optimized) = (first["fuel"].as_u64(), second["fuel"].as_u64());
            if first["error"].is_null() && !RANDOM.contains(&guest.name.as_str()) && fuel != optimized {
                problems.push(format!("{}: {fuel:?} units of fuel, optimized {optimized:?}", name()));
            }
            let expected = case.expected();
            let found = envelope_problems(Ok(first), None, &expected, case.stderr.as_deref());
            problems.extend(found.iter().map(|problem| format!("{}: {problem}", name())));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    held.let_go()
}

/// Operations on ranges of memories and tables cost by their length, constant or not.
const BULK_OPERATIONS: [&str; 8] = [
    "(memory.fill (i32.const 0) (i32.const 1) (i32.const 50000))",
    "(memory.fill (i32.const 0) (i32.const 1) (call $long))",
    "(memory.copy (i32.const 0) (i32.const 1) (call $long))",
    "(memory.init $bytes (i32.const 0) (i32.const 0) (i32.const 2000))",
    "(table.fill (i32.const 0) (ref.null func) (call $long))",
    "(table.copy (i32.const 0) (i32.const 1) (call $long))",
    "(table.init $functions (i32.const 0) (i32.const 0) (i32.const 1200))",
    "(drop (table.grow (ref.null func) (call $long)))",
];

#[tokio::test]
async fn bulk_operations_take_the_same_fuel_on_either_code() -> Result<()> {
    let held = Held::new()?;
    let baseline = held.gateway(100).await?;
    let optimized = Gateway::embedded(&format!("{LIMITS}[compiler]\nbaseline = false\n")).await?;
    let (mut on_baseline, mut on_optimized) = (device(&baseline).await?, device(&optimized).await?);
    for operation in BULK_OPERATIONS {
        let module = wat::parse_str(format!(
            r#"(module (memory (export "memory") 1) (table 3000 funcref)
                (data $bytes "{}") (elem $functions func {})
                (func $long (result i32) (i32.const 2500))
                (func (export "_start") {operation}))"#,
            "x".repeat(2000),
            "$long ".repeat(1200),
        ))?;
        for (fuel, kind) in [(1_000, Some("fuel")), (1_000_000, None)] {
            let request = json!({ "module": envelope::bytes(&module), "fuel": fuel, "reply": "envelope" });
            let first = ask(&mut on_baseline, &request).await.context(operation)?;
            let second = ask(&mut on_optimized, &request).await.context(operation)?;
            let ending = |answer: &Value| (envelope::error_kind(answer).to_owned(), answer["fuel"].clone());
            assert_eq!(ending(&first), ending(&second), "{operation}, {fuel} units");
            assert_eq!(first["error"]["kind"].as_str(), kind, "{operation}, {fuel} units: {first}");
        }
    }
    held.let_go()
}

/// There is one turn, and optimized code is held back for ever: whoever waits goes before it.
#[tokio::test]
async fn first_answers_wait_for_no_optimized_code() -> Result<()> {
    let held = Held::new()?;
    let gateway = held.gateway(1).await?;
    let mut device = device(&gateway).await?;
    for guest in ["hello", "primes", "echo"] {
        let request = json!({ "module": envelope::bytes(guest::module(guest)?), "args": ["20"] });
        let answer = ask(&mut device, &request).await.with_context(|| guest.to_owned())?;
        assert_eq!(answer["status"], "ok", "{guest}: {answer}");
    }
    held.let_go()
}

fn without_nulls(mut request: Value) -> Value {
    request.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    request
}

#[tokio::test]
async fn an_answer_comes_before_the_optimized_code_which_then_takes_over_and_is_kept() -> Result<()> {
    let held = Held::new()?;
    let gateway = held.gateway(1).await?;
    let mut device = device(&gateway).await?;
    let module = guest::module("primes")?;
    let request = json!({ "module": envelope::bytes(&module), "args": ["20"], "reply": "envelope" });
    let first = ask(&mut device, &request).await?;
    let artifacts = gateway.data_dir().join("artifacts");
    let digest = guest::digest(&module).await?.replace("sha256:", "");
    let kept = || -> Result<usize> {
        let names = fs::read_dir(&artifacts)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<Result<Vec<_>>>()?;
        Ok(names.iter().filter(|name| name.to_string_lossy().starts_with(&digest)).count())
    };
    assert_eq!(kept()?, 1, "the baseline code alone");
    held.let_go()?;
    // Each answer is the same, whatever code it came from.
    while kept()? < 2 {
        assert_eq!(ask(&mut device, &request).await?["stdout"], first["stdout"]);
    }

    // Kept: a compiler that can do nothing is not asked.
    fs::write(held.file(), "")?;
    let configuration = format!("[compiler]\nprogram = {:?}\nbaseline_from = 0\n", held.script());
    let gateway = gateway.restart(&["--listen", "127.0.0.1:0"], &configuration).await?;
    let mut device = self::device(&gateway).await?;
    let again = json!({ "digest": format!("sha256:{digest}"), "args": ["20"], "reply": "envelope" });
    assert_eq!(ask(&mut device, &again).await?["stdout"], first["stdout"]);
    Ok(())
}
