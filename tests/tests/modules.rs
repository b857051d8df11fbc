//! The modules that a principal has at the gateway: listed, stored, removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Options, Version};
use offload_tests::gateway::Gateway;
use offload_tests::guest::digest;
use offload_tests::password_file::set_password;
use offload_tests::{PATIENCE, built, cbor, envelope, guest, on_each_broker};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

/// A module's whole life takes place in each encoding.
#[derive(Clone, Copy)]
enum Encoding {
    Json,
    Cbor,
}

/// A list of some modules is longer than this much of stdout.
const SHORT_STDOUT: &str = "[limits]\nstdout = \"1KiB\"\n";

on_each_broker! {
    a_module_is_stored_and_listed_and_run_and_removed,
    what_is_no_request_about_modules_is_malformed,
    what_cannot_be_kept_is_told with "[limits]\nmodule = \"2MiB\"\n[modules]\nper_principal = \"1MiB\"\n",
    what_the_configuration_shares_is_neither_listed_nor_removed with [&shared(), &shared()],
    what_is_removed_runs_to_its_end with "[workers]\ncount = 1\n",
    an_id_is_answered_once,
    a_list_is_held_to_the_limit_of_stdout with SHORT_STDOUT,
    whatever_comes_together_is_answered_and_leaves_what_is_listed,
}

async fn ask(device: &mut Device, encoding: Encoding, topic: &str, request: &Value) -> Result<Value> {
    match encoding {
        Encoding::Json => envelope::ask(device, topic, request).await,
        Encoding::Cbor => cbor::read(&device.ask(topic, cbor::write(request)?).await?),
    }
}

fn list() -> Value {
    json!({ "modules": "list" })
}

fn store(module: &[u8]) -> Value {
    json!({ "modules": "store", "module": envelope::bytes(module) })
}

fn remove(digest: &str) -> Value {
    json!({ "modules": "remove", "digest": digest })
}

/// The list that an answer carries.
fn modules_in(answer: &Value) -> Result<Vec<Value>> {
    ensure!(answer["status"] == "ok" && answer["exit_code"] == 0, "{answer}");
    serde_json::from_slice(&envelope::bytes_of(answer, "stdout")?).context("no list")
}

/// The digests that a device's principal has, in the order in which they are listed.
async fn listed(device: &mut Device, topic: &str) -> Result<Vec<String>> {
    let answer = envelope::ask(device, topic, list()).await?;
    let digest = |module: &Value| Ok(module["digest"].as_str().context("a digest is text")?.to_owned());
    modules_in(&answer)?.iter().map(digest).collect()
}

/// A small module of its own for each number, which prints nothing.
fn numbered(n: usize) -> Result<Bytes> {
    let text = format!(
        "(module (memory (export \"memory\") 1) (data (i32.const 0) \"{n}\") (func (export \"_start\")))"
    );
    Ok(wat::parse_str(text)?.into())
}

/// One that is this long at least.
fn as_long_as(bytes: usize) -> Result<Bytes> {
    let (pages, data) = (bytes.div_ceil(1 << 16), "x".repeat(bytes));
    let memory = format!("(memory (export \"memory\") {pages}) (data (i32.const 0) \"{data}\")");
    Ok(wat::parse_str(format!("(module {memory} (func (export \"_start\")))"))?.into())
}

fn milliseconds() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis().try_into()?)
}

/// The configuration of a gateway that shares two modules.
fn shared() -> String {
    let file = |guest: &str| built::guest(guest).map(|file| file.display().to_string()).unwrap_or_default();
    let (program, preloaded) = (file("hello"), file("echo"));
    format!("[[program]]\nname = \"greet\"\nfile = {program:?}\n[modules]\npreload = [{preloaded:?}]\n")
}

/// `list` on either topic, `store` on `inputCode`, `remove` with `digest`; answered `ok` with stdout in JSON:
/// `[{"digest", "bytes", "last_used"}]` for `list`, the same of the one module for `store`, empty for `remove`;
/// `not-found` where it is not this principal's. What is stored is compiled and kept, and not run.
async fn a_module_is_stored_and_listed_and_run_and_removed(deployment: Deployment) -> Result<()> {
    for (encoding, guest, version) in
        [(Encoding::Json, "hello", Version::V5), (Encoding::Cbor, "greet", Version::V311)]
    {
        let (module, mut device) = (guest::module(guest)?, deployment.device(version, "life").await?);
        let digest = digest(&module).await?;
        let empty = ask(&mut device, encoding, "localCode/life", &list()).await?;
        assert_eq!(envelope::bytes_of(&empty, "stdout")?, b"[]");

        let (before, stored) =
            (milliseconds()?, ask(&mut device, encoding, "inputCode/life", &store(&module)).await?);
        let found = modules_in(&stored)?;
        ensure!(found.len() == 1, "{stored}");
        let of_store = &found[0];
        assert_eq!(of_store["digest"], digest);
        assert_eq!(of_store["bytes"], module.len());
        let since = of_store["last_used"].as_u64().context("milliseconds")?;
        assert!((before..=milliseconds()?).contains(&since), "{before} {since}");
        assert_eq!(stored["fuel"], 0, "nothing has run: {stored}");
        assert_eq!(stored["stderr"], "");

        for topic in ["localCode/life", "inputCode/life"] {
            let found = modules_in(&ask(&mut device, encoding, topic, &list()).await?)?;
            assert_eq!((found.len(), &found[0]["digest"]), (1, &of_store["digest"]), "{topic}");
            assert_eq!(found[0]["bytes"], of_store["bytes"], "{topic}");
            assert!(found[0]["last_used"].as_u64() >= Some(since), "{topic}: {found:?}");
            let by_digest = json!({ "digest": digest });
            let ran = ask(&mut device, encoding, topic, &by_digest).await?;
            assert!(envelope::bytes_of(&ran, "stdout")?.starts_with(b"hello"), "{ran}");
        }
        let found = modules_in(&ask(&mut device, encoding, "localCode/life", &list()).await?)?;
        assert!(found[0]["last_used"].as_u64() >= Some(since), "naming it is a use of it: {found:?}");

        let topic = if version == Version::V5 { "localCode/life" } else { "inputCode/life" };
        let removed = ask(&mut device, encoding, topic, &remove(&digest)).await?;
        assert_eq!((&removed["status"], &removed["stdout"]), (&json!("ok"), &json!("")), "{removed}");
        for gone in [remove(&digest), json!({ "digest": digest })] {
            let answer = ask(&mut device, encoding, "localCode/life", &gone).await?;
            assert_eq!(envelope::error_kind(&answer), "not-found", "{gone}: {answer}");
        }
        assert!(listed(&mut device, "localCode/life").await?.is_empty());

        // What was sent to be run is one as well.
        let ran = json!({ "module": envelope::bytes(&module) });
        assert_eq!(ask(&mut device, encoding, "inputCode/life", &ran).await?["status"], "ok");
        assert_eq!(listed(&mut device, "localCode/life").await?, [digest.as_str()]);
        let stdout = json!({ "modules": "remove", "digest": digest, "reply": "stdout" });
        assert_eq!(device.ask("localCode/life", stdout.to_string()).await?.text(), "");
        let stdout = json!({ "modules": "list", "reply": "stdout" });
        assert_eq!(device.ask("localCode/life", stdout.to_string()).await?.text(), "[]");
    }
    Ok(())
}

/// The field stands in place of the code.
async fn what_is_no_request_about_modules_is_malformed(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "wrong").await?;
    let module = envelope::bytes(guest::module("hello")?);
    let digest = format!("sha256:{}", "0".repeat(64));
    for (topic, request, field) in [
        ("localCode", json!({ "modules": "forget" }), "modules: "),
        ("localCode", json!({ "modules": ["list"] }), "modules: "),
        ("localCode", json!({ "modules": null }), "modules: "),
        ("localCode", json!({ "modules": "list", "program": "add" }), "modules: "),
        ("localCode", json!({ "modules": "list", "digest": digest }), "modules: "),
        ("inputCode", json!({ "modules": "store" }), "modules: "),
        ("inputCode", json!({ "modules": "store", "digest": digest }), "modules: "),
        ("inputCode", json!({ "modules": "store", "module": module, "digest": digest }), "digest, module: "),
        ("localCode", json!({ "modules": "store", "module": module }), "module: "),
        ("localCode", json!({ "modules": "remove" }), "modules: "),
        ("inputCode", json!({ "modules": "remove", "module": module }), "modules: "),
        ("localCode", json!({ "modules": "remove", "digest": "sha256:00" }), "digest: "),
        ("inputCode", json!({ "modules": "store", "module": module, "args": ["5"] }), "args: "),
    ] {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            if matches!(encoding, Encoding::Cbor) && request["modules"].is_null() {
                continue;
            }
            let answer = ask(&mut device, encoding, &format!("{topic}/wrong"), &request).await?;
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            ensure!(
                envelope::error_kind(&answer) == "malformed" && message.starts_with(field),
                "{request}: {answer}"
            );
        }
    }
    assert!(listed(&mut device, "localCode/wrong").await?.is_empty());
    Ok(())
}

/// `store` has the limits and the kinds of errors of a run.
async fn what_cannot_be_kept_is_told(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "large").await?;
    let importing: Bytes =
        wat::parse_str(r#"(module (import "env" "f" (func)) (func (export "_start")))"#)?.into();
    for (module, kind, words) in [
        (Bytes::from_static(b"\0asm noise"), "malformed", ""),
        (importing, "malformed", "env"),
        (as_long_as(1 << 20)?, "too-large", "modules.per_principal"),
        (as_long_as(2 << 20)?, "too-large", "2097152 bytes"),
    ] {
        let answer = envelope::ask(&mut device, "inputCode/large", store(&module)).await?;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        ensure!(envelope::error_kind(&answer) == kind && message.contains(words), "{kind}: {answer}");
    }
    // It can be run all the same.
    let run = json!({ "module": envelope::bytes(as_long_as(1 << 20)?) });
    assert_eq!(envelope::ask(&mut device, "inputCode/large", run).await?["status"], "ok");
    assert!(listed(&mut device, "localCode/large").await?.is_empty());

    let mut stored = Vec::new();
    for n in 0..4 {
        let module = as_long_as(300_000 + n)?;
        let answer = envelope::ask(&mut device, "inputCode/large", store(&module)).await?;
        assert_eq!(answer["status"], "ok", "{answer}");
        stored.push(digest(&module).await?);
    }
    // The last used first; the quota holds three.
    let expected: Vec<String> = stored.iter().skip(1).rev().cloned().collect();
    assert_eq!(listed(&mut device, "localCode/large").await?, expected);
    let named = json!({ "digest": stored[1] });
    assert_eq!(envelope::ask(&mut device, "localCode/large", named).await?["status"], "ok");
    assert_eq!(listed(&mut device, "localCode/large").await?[0], stored[1]);
    Ok(())
}

/// Shared modules are neither listed nor removed.
async fn what_the_configuration_shares_is_neither_listed_nor_removed(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "sharer").await?;
    for name in ["hello", "echo"] {
        let module = guest::module(name)?;
        let digest = digest(&module).await?;
        let run = json!({ "digest": digest });
        assert_eq!(envelope::ask(&mut device, "localCode/sharer", &run).await?["status"], "ok", "{name}");
        assert!(listed(&mut device, "localCode/sharer").await?.is_empty(), "{name}");
        let refused = envelope::ask(&mut device, "localCode/sharer", remove(&digest)).await?;
        assert_eq!(envelope::error_kind(&refused), "not-found", "{name}: {refused}");
        // One's own of the same bytes is; the shared one stays.
        let stored = envelope::ask(&mut device, "inputCode/sharer", store(&module)).await?;
        assert_eq!(stored["status"], "ok", "{stored}");
        assert_eq!(listed(&mut device, "localCode/sharer").await?, [digest.as_str()]);
        let removed = envelope::ask(&mut device, "localCode/sharer", remove(&digest)).await?;
        assert_eq!(removed["status"], "ok", "{removed}");
        assert_eq!(envelope::ask(&mut device, "localCode/sharer", &run).await?["status"], "ok", "{name}");
    }
    Ok(())
}

/// Where every client's modules are all clients', nobody lists and removes them.
#[tokio::test]
async fn what_all_clients_share_is_nobodys() -> Result<()> {
    let deployment = Deployment::on_mosquitto("[modules]\nshared = true\n").await?;
    let module = guest::module("hello")?;
    let digest = digest(&module).await?;
    let mut one = deployment.device(Version::V5, "one").await?;
    let mut other = deployment.device(Version::V5, "other").await?;
    assert_eq!(envelope::ask(&mut one, "inputCode/one", store(&module)).await?["status"], "ok");
    for (device, topic) in [(&mut one, "localCode/one"), (&mut other, "localCode/other")] {
        assert!(listed(device, topic).await?.is_empty());
        let refused = envelope::ask(device, topic, remove(&digest)).await?;
        assert_eq!(envelope::error_kind(&refused), "not-found", "{refused}");
        let run = json!({ "digest": digest });
        assert_eq!(envelope::ask(device, topic, run).await?["status"], "ok");
    }
    Ok(())
}

/// Two that have stored the same bytes: each has its own, and nobody sees or removes another's.
#[tokio::test]
async fn each_principal_has_its_own() -> Result<()> {
    let folder = TempDir::new()?;
    let passwords = folder.path().join("passwords");
    for user in ["anna", "berta"] {
        set_password(&passwords, user, "secret").await?;
    }
    let configuration = format!("[access]\npasswords = {:?}\n", passwords.display().to_string());
    let embedded = Deployment::embedded(&configuration).await?;
    let on_mosquitto = Deployment::on_mosquitto("").await?;
    let module = guest::module("hello")?;
    let digest = digest(&module).await?;
    let run = json!({ "digest": digest });
    for (deployment, has_users) in [(&embedded, true), (&on_mosquitto, false)] {
        let mut devices = HashMap::new();
        for user in ["anna", "berta"] {
            let credentials = has_users.then_some((user, "secret"));
            let options = Options { credentials, ..Options::default() };
            let mut device = Device::connect_with(deployment.address(), Version::V5, user, options).await?;
            device.subscribe(&format!("result/{user}")).await?;
            devices.insert(user, device);
        }
        let [anna, berta] = devices.get_disjoint_mut(["anna", "berta"]);
        let (anna, berta) = (anna.context("anna")?, berta.context("berta")?);
        assert_eq!(envelope::ask(anna, "inputCode/anna", store(&module)).await?["status"], "ok");
        for request in [remove(&digest), run.clone()] {
            let refused = envelope::ask(berta, "localCode/berta", &request).await?;
            assert_eq!(envelope::error_kind(&refused), "not-found", "{request}: {refused}");
        }
        assert!(listed(berta, "localCode/berta").await?.is_empty());
        assert_eq!(envelope::ask(berta, "inputCode/berta", store(&module)).await?["status"], "ok");
        assert_eq!(envelope::ask(anna, "localCode/anna", remove(&digest)).await?["status"], "ok");
        assert!(listed(anna, "localCode/anna").await?.is_empty());
        assert_eq!(listed(berta, "localCode/berta").await?, [digest.as_str()]);
        assert_eq!(envelope::ask(berta, "localCode/berta", &run).await?["status"], "ok");
    }
    Ok(())
}

/// `remove` while requests of the module run, and wait for the one worker: they run to their end.
async fn what_is_removed_runs_to_its_end(deployment: Deployment) -> Result<()> {
    const RUNS: usize = 8;
    let mut device = deployment.device(Version::V5, "busy").await?;
    let module = guest::module("sleep")?;
    let digest = digest(&module).await?;
    assert_eq!(envelope::ask(&mut device, "inputCode/busy", store(&module)).await?["status"], "ok");
    for n in 0..RUNS {
        let run = json!({ "digest": digest, "args": ["500"], "id": format!("run-{n}") });
        device.publish("localCode/busy", run.to_string()).await?;
    }
    let mut request = remove(&digest);
    request["id"] = json!("remove");
    device.publish("localCode/busy", request.to_string()).await?;
    let late = json!({ "digest": digest, "id": "late" });
    let mut answers = BTreeMap::new();
    while answers.len() < RUNS + 2 {
        let answer = envelope::read(&device.message().await?)?;
        let id = answer["id"].as_str().unwrap_or_default().to_owned();
        if id == "remove" {
            device.publish("localCode/busy", late.to_string()).await?;
        }
        answers.insert(id, answer);
    }
    assert_eq!(envelope::error_kind(&answers["late"]), "not-found", "{}", answers["late"]);
    for (id, answer) in answers.iter().filter(|(id, _)| *id != "late") {
        assert_eq!(answer["status"], "ok", "{id}: {answer}");
    }
    Ok(())
}

/// A request that waits for the compiler runs too, though its module is removed meanwhile; afterwards nothing is left.
#[tokio::test]
async fn what_is_removed_while_it_is_compiled_runs_too() -> Result<()> {
    let folder = TempDir::new()?;
    let go = folder.path().join("go");
    let gateway = Gateway::embedded("").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "early").await?;
    device.subscribe("result/early").await?;
    let module = guest::module("sort")?;
    let digest = digest(&module).await?;
    assert_eq!(envelope::ask(&mut device, "inputCode/early", store(&module)).await?["status"], "ok");

    // Another process has to compile it again, and its compiler waits until it is told to go.
    let gateway = restart_with_a_compiler_that_waits(gateway, folder.path(), &go).await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "early").await?;
    device.subscribe("result/early").await?;
    let run = json!({ "digest": digest, "id": "run", "stdin": envelope::bytes("b\na\n") });
    device.publish("localCode/early", run.to_string()).await?;
    let removed = envelope::ask(&mut device, "localCode/early", remove(&digest)).await?;
    assert_eq!((&removed["id"], &removed["status"]), (&Value::Null, &json!("ok")), "{removed}");
    for gone in [remove(&digest), json!({ "digest": digest })] {
        let answer = envelope::ask(&mut device, "localCode/early", &gone).await?;
        assert_eq!(envelope::error_kind(&answer), "not-found", "{gone}: {answer}");
    }
    assert!(listed(&mut device, "localCode/early").await?.is_empty());
    fs::write(&go, "")?;
    let ran = envelope::read(&device.message().await?)?;
    assert_eq!(envelope::bytes_of(&ran, "stdout")?, b"a\nb\n", "{ran}");
    until_kept(&gateway, &BTreeSet::new()).await
}

/// Removed while a request waits for it, and stored again: it stays.
#[tokio::test]
async fn what_is_stored_again_before_it_is_cleared_stays() -> Result<()> {
    let folder = TempDir::new()?;
    let go = folder.path().join("go");
    let gateway = Gateway::embedded("").await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "again").await?;
    device.subscribe("result/again").await?;
    let module = guest::module("sort")?;
    let digest = digest(&module).await?;
    assert_eq!(envelope::ask(&mut device, "inputCode/again", store(&module)).await?["status"], "ok");
    let gateway = restart_with_a_compiler_that_waits(gateway, folder.path(), &go).await?;
    let mut device = Device::connect(gateway.address()?, Version::V5, "again").await?;
    device.subscribe("result/again").await?;
    device.publish("localCode/again", json!({ "digest": digest }).to_string()).await?;
    assert_eq!(envelope::ask(&mut device, "localCode/again", remove(&digest)).await?["status"], "ok");
    device.publish("inputCode/again", store(&module).to_string()).await?;
    fs::write(&go, "")?;
    for _ in 0..2 {
        let answer = envelope::read(&device.message().await?)?;
        assert_eq!(answer["status"], "ok", "{answer}");
    }
    assert_eq!(listed(&mut device, "localCode/again").await?, [digest.as_str()]);
    until_kept(&gateway, &BTreeSet::from([digest.clone()])).await?;
    let run = json!({ "digest": digest, "stdin": envelope::bytes("b\na\n") });
    assert_eq!(envelope::ask(&mut device, "localCode/again", run).await?["status"], "ok");
    Ok(())
}

/// Starts the gateway again without its artifacts, and with a compiler that waits for the file `go`.
async fn restart_with_a_compiler_that_waits(gateway: Gateway, folder: &Path, go: &Path) -> Result<Gateway> {
    // The gateway's own program is compiled at start.
    fs::write(go, "")?;
    let compiler = folder.join("compiler");
    let program = built::program("offload-rt")?;
    let script = format!(
        "#!/bin/sh\nwhile [ ! -e '{}' ]; do /bin/sleep 0.02; done\nexec '{}' \"$@\"\n",
        go.display(),
        program.display()
    );
    fs::write(&compiler, script)?;
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o700))?;
    fs::remove_dir_all(gateway.data_dir().join("artifacts"))?;
    let configuration = format!("[compiler]\nprogram = {:?}\n", compiler.display().to_string());
    let gateway = gateway.restart(&["--listen", "127.0.0.1:0"], &configuration).await?;
    fs::remove_file(go)?;
    Ok(gateway)
}

/// Waits until the files of the data directory are those of these modules and no others.
async fn until_kept(gateway: &Gateway, digests: &BTreeSet<String>) -> Result<()> {
    let directory = gateway.data_dir().join("modules");
    let expected: BTreeSet<String> = digests.iter().map(|digest| digest.replace("sha256:", "")).collect();
    let kept = || -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for file in fs::read_dir(&directory)? {
            let path = file?.path();
            if path.extension().is_some() {
                let name = path.file_stem().context("a file has a name")?;
                names.insert(name.to_string_lossy().into_owned());
            }
        }
        Ok(names)
    };
    timeout(PATIENCE, async {
        while kept()? != expected {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(())
    })
    .await
    .with_context(|| format!("kept: {:?}, expected: {expected:?}", kept()))?
}

/// What was answered `ok` is so after a crash, with no id and no journal of it.
#[tokio::test]
async fn what_was_answered_outlives_a_crash() -> Result<()> {
    for configuration in ["", "durability = \"off\"\n"] {
        let mut gateway = Gateway::embedded(configuration).await?;
        let (kept, gone) = (guest::module("hello")?, guest::module("sort")?);
        let (kept_digest, gone_digest) = (digest(&kept).await?, digest(&gone).await?);
        let mut device = Device::connect(gateway.address()?, Version::V5, "crash").await?;
        device.subscribe("result/crash").await?;
        assert_eq!(envelope::ask(&mut device, "inputCode/crash", store(&gone)).await?["status"], "ok");
        assert_eq!(envelope::ask(&mut device, "inputCode/crash", store(&kept)).await?["status"], "ok");
        let before = envelope::ask(&mut device, "localCode/crash", list()).await?;
        let before = modules_in(&before)?;
        let removed = envelope::ask(&mut device, "localCode/crash", remove(&gone_digest)).await?;
        assert_eq!(removed["status"], "ok", "{removed}");
        gateway = gateway.crash(Signal::KILL, &["--listen", "127.0.0.1:0"], configuration).await?;

        let mut device = Device::connect(gateway.address()?, Version::V5, "crash").await?;
        device.subscribe("result/crash").await?;
        let after = modules_in(&envelope::ask(&mut device, "localCode/crash", list()).await?)?;
        assert_eq!(after.len(), 1, "{after:?}");
        assert_eq!((&after[0]["digest"], &after[0]["bytes"]), (&json!(kept_digest), &before[0]["bytes"]));
        let run = json!({ "digest": kept_digest });
        assert_eq!(envelope::ask(&mut device, "localCode/crash", run).await?["status"], "ok");
    }
    Ok(())
}

/// A request with an `id` is answered again with what it was answered first, as any other is; with another action, or
/// another module, it is another request. The list comes in pieces, too.
async fn an_id_is_answered_once(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "named").await?;
    let module = guest::module("hello")?;
    let digest = digest(&module).await?;
    let named = |mut request: Value, id: &str| {
        request["id"] = json!(id);
        request
    };
    let first = envelope::ask(&mut device, "inputCode/named", named(store(&module), "s")).await?;
    assert_eq!(envelope::ask(&mut device, "inputCode/named", named(store(&module), "s")).await?, first);
    let listed = envelope::ask(&mut device, "localCode/named", named(list(), "l")).await?;
    for _ in 0..2 {
        let removed = envelope::ask(&mut device, "localCode/named", named(remove(&digest), "r")).await?;
        assert_eq!((&removed["id"], &removed["status"]), (&json!("r"), &json!("ok")), "{removed}");
    }
    assert_eq!(envelope::ask(&mut device, "localCode/named", named(list(), "l")).await?, listed);
    for other in [named(list(), "r"), named(json!({ "digest": digest }), "r"), named(remove(&digest), "s")] {
        let refused = envelope::ask(&mut device, "localCode/named", &other).await?;
        assert_eq!(envelope::error_kind(&refused), "malformed", "{other}: {refused}");
    }
    let whole = envelope::bytes_of(&listed, "stdout")?;
    let mut piece = named(list(), "l");
    (piece["stdout_offset"], piece["stdout_length"]) = (json!(2), json!(8));
    let part = envelope::ask(&mut device, "localCode/named", piece).await?;
    assert_eq!(envelope::bytes_of(&part, "stdout")?, &whole[2..10]);
    assert_eq!(part["stdout_total"], whole.len());
    Ok(())
}

/// More modules than the limit of stdout can list: `output`, and each can be removed still.
async fn a_list_is_held_to_the_limit_of_stdout(deployment: Deployment) -> Result<()> {
    let mut device = deployment.device(Version::V5, "many").await?;
    let mut digests = Vec::new();
    for n in 0..12 {
        let module = numbered(n)?;
        assert_eq!(envelope::ask(&mut device, "inputCode/many", store(&module)).await?["status"], "ok");
        digests.push(digest(&module).await?);
    }
    let refused = envelope::ask(&mut device, "localCode/many", list()).await?;
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    ensure!(envelope::error_kind(&refused) == "output" && message.contains("12 modules"), "{refused}");
    for digest in &digests[3..] {
        assert_eq!(envelope::ask(&mut device, "localCode/many", remove(digest)).await?["status"], "ok");
    }
    let left: Vec<String> = digests[..3].iter().rev().cloned().collect();
    assert_eq!(listed(&mut device, "localCode/many").await?, left);
    Ok(())
}

/// 64 requests in flight, of all kinds and of a few modules: each is answered as one of them after another could be.
/// What is there in the end is what is listed, and what lies on the disk.
async fn whatever_comes_together_is_answered_and_leaves_what_is_listed(deployment: Deployment) -> Result<()> {
    const ROUNDS: usize = 8;
    let mut device = deployment.device(Version::V5, "race").await?;
    let modules: Vec<Bytes> = (0..4).map(numbered).collect::<Result<_>>()?;
    let mut digests = Vec::new();
    for module in &modules {
        digests.push(digest(module).await?);
    }
    for round in 0..ROUNDS {
        for n in 0..16 {
            let which = (n + round) % modules.len();
            let (module, digest) = (&modules[which], &digests[which]);
            let requests =
                [store(module), remove(digest), json!({ "digest": digest }), list()].into_iter().enumerate();
            for (kind, mut request) in requests {
                request["id"] = json!(format!("{kind} {round} {n}"));
                device.publish("inputCode/race", request.to_string()).await?;
            }
        }
        for _ in 0..64 {
            let answer = envelope::read(&device.message().await?)?;
            let kind = answer["id"].as_str().and_then(|id| id.split(' ').next());
            let may_be_gone = matches!(kind, Some("1" | "2"));
            ensure!(
                answer["status"] == "ok" || may_be_gone && envelope::error_kind(&answer) == "not-found",
                "{answer}"
            );
        }
    }
    let left: BTreeSet<String> = listed(&mut device, "localCode/race").await?.into_iter().collect();
    ensure!(left.iter().all(|digest| digests.contains(digest)), "{left:?}");
    until_kept(&deployment.gateway, &left).await?;
    for digest in &digests {
        let run = envelope::ask(&mut device, "localCode/race", json!({ "digest": digest })).await?;
        assert_eq!(run["status"] == "ok", left.contains(digest), "{run}");
    }
    Ok(())
}

/// A rule can keep a client from sending modules: it cannot store them either.
#[tokio::test]
async fn whoever_may_send_no_modules_stores_none() -> Result<()> {
    let deployment = Deployment::embedded("[access]\noffload = []\n").await?;
    let mut device = deployment.device(Version::V5, "reader").await?;
    let refused = envelope::ask(&mut device, "inputCode/reader", store(&guest::module("hello")?)).await?;
    assert_eq!(envelope::error_kind(&refused), "unauthorized", "{refused}");
    assert!(listed(&mut device, "localCode/reader").await?.is_empty());
    Ok(())
}

/// `offload-client push`, `ls` and `rm`, against a gateway on each broker.
#[tokio::test]
async fn the_command_pushes_lists_and_removes() -> Result<()> {
    let folder = TempDir::new()?;
    let text = folder.path().join("numbered.wat");
    fs::write(&text, "(module (memory (export \"memory\") 1) (func (export \"_start\")))")?;
    let hello = built::guest("hello")?;
    let (hello, text) = (hello.display().to_string(), text.display().to_string());
    for deployment in [Deployment::embedded("").await?, Deployment::on_mosquitto("").await?] {
        let run = async |words: &[&str]| offload_client(&deployment, words).await;
        let pushed = run(&["push", &hello, &text]).await?;
        let (pushed, digest) = (printed(&pushed)?, digest(&guest::module("hello")?).await?);
        let [first, second] = pushed.lines().collect::<Vec<_>>()[..] else { anyhow::bail!("{pushed}") };
        assert_eq!(first, digest);
        assert_eq!(printed(&run(&["send", first]).await?)?, "hello!\n");

        let table = printed(&run(&["ls"]).await?)?;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["DIGEST", "SIZE", "LAST", "USED"]);
        assert_eq!(rows[1][..3], [first, "1", "KiB"], "{table}");
        assert_eq!(rows[2][..3], [second, "1", "KiB"], "{table}");
        let as_json: Vec<Value> = serde_json::from_str(&printed(&run(&["ls", "--json"]).await?)?)?;
        assert_eq!(as_json[0]["digest"], digest);

        let prefix = &digest[.."sha256:".len() + 8];
        assert_eq!(printed(&run(&["rm", prefix]).await?)?, format!("{digest}\n"));
        let gone = run(&["rm", prefix]).await?;
        let told = String::from_utf8_lossy(&gone.stderr).into_owned();
        assert_eq!(gone.status.code(), Some(125));
        assert!(told.starts_with("error: not-found: "), "{told}");
        assert_eq!(printed(&run(&["rm", second]).await?)?, format!("{second}\n"));
        assert_eq!(printed(&run(&["ls"]).await?)?.lines().count(), 1);
    }
    Ok(())
}

/// The command as the client `pusher`.
async fn offload_client(deployment: &Deployment, words: &[&str]) -> Result<Output> {
    let mut command = Command::new(built::program("offload-client")?);
    let broker = format!("mqtt://{}", deployment.address());
    command.args(["--broker", &broker, "-i", "pusher"]).args(words).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.context("it does not end")?.context("it does not start")
}

fn printed(output: &Output) -> Result<String> {
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(String::from_utf8(output.stdout.clone())?)
}
