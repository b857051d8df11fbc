//! The client in JavaScript: its types, and its example page in Chromium over WebSocket. What all clients do is in
//! `client_conformance.rs`.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use offload_tests::gateway::Gateway;
use offload_tests::javascript_client::JavaScriptClient;
use offload_tests::process::Process;
use offload_tests::{PATIENCE, built};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

async fn run(mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    timeout(PATIENCE, command.output()).await.context("it does not end")?.context("it cannot be run")
}

/// Right uses, and wrong ones that have to be found: an error that is expected and missing is an error.
const USES: &str = r#"import { Gateway, OffloadError, type Answer } from "./offload-client.js";

const gateway: Gateway = await Gateway.connect(new URL("ws://localhost:9001/mqtt"), { username: "u", resend: 1000 });
const answer: Answer = await gateway.run("add", ["5", "7"], { id: "1", signal: AbortSignal.timeout(1000) });
const text: string = answer.text + answer.stdout.length + (answer.exitCode ?? 0);
await gateway.offload(new Blob(), [], { stdin: "x", piece: 100 });
await gateway.send({ files: { "main.c": new Uint8Array() }, target: "main" });
try {
  await gateway.close();
} catch (error) {
  if (error instanceof OffloadError && error.kind === "busy") console.log(text, gateway.lost);
}
// @ts-expect-error: texts are expected
await gateway.run("add", [5, 7]);
// @ts-expect-error: there is no such option
await Gateway.connect("ws://localhost", { retries: 3 });
// @ts-expect-error: a connection is made by `connect`
new Gateway();
"#;

#[tokio::test]
async fn its_types_say_what_it_takes() -> Result<()> {
    let client = JavaScriptClient::copy()?;
    std::fs::write(client.file("uses.ts"), USES)?;
    let mut tsc = Command::new("node");
    tsc.arg(client.file("node_modules/typescript/bin/tsc")).current_dir(client.folder());
    tsc.args(["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]);
    tsc.arg("uses.ts");
    let checked = run(tsc).await?;
    ensure!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    Ok(())
}

/// A static server for the client's folder, and its port.
async fn serve(folder: &Path, log: &Path) -> Result<(Process, String)> {
    let folder = folder.to_str().context("a path is not UTF-8")?;
    let server = ["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder];
    let mut server = Process::start(&built::python()?, &server, log)?;
    let line = server.line().await?;
    let port = line.split("port ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok((server, port.with_context(|| line.clone())?.to_owned()))
}

/// A module that the user picks runs, a failing one says why, and a page of another origin is not let in.
#[tokio::test]
async fn the_page_offloads_what_its_user_picks() -> Result<()> {
    let client = JavaScriptClient::copy()?;
    let (_server, port) = serve(client.folder(), &client.file("log")).await?;
    let gateway = Gateway::embedded(&format!(
        "[access]\nanonymous = true\n[websocket]\naddress = \"127.0.0.1:0\"\n\
         origins = [\"http://127.0.0.1:{port}\"]\n"
    ))
    .await?;
    let line = gateway.logged(&["MQTT over WebSocket", "address="]).await?;
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.context("the line has an address")?;
    let page = async |host: &str, runs: &[(&str, &str)]| {
        let url = format!("http://{host}:{port}/examples/page/?gateway=ws://{address}/mqtt");
        let mut browser = Command::new("node");
        browser.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/web/offload.cjs")).arg(built::node()?).arg(url);
        for (module, arguments) in runs {
            browser.arg(built::guest(module)?).arg(arguments);
        }
        let shown = run(browser).await?;
        ensure!(shown.status.success(), "{shown:?}");
        let lines = String::from_utf8(shown.stdout)?;
        let shown: Result<Vec<Value>, _> = lines.lines().map(serde_json::from_str).collect();
        Ok(shown?)
    };
    let shown =
        page("127.0.0.1", &[("add", "5 7"), ("add", "40 2"), ("trap", ""), ("exit-code", "3")]).await?;
    assert_eq!((&shown[0]["answer"], &shown[1]["answer"]), (&"12\n".into(), &"42\n".into()), "{shown:?}");
    let says = |at: usize, field: &str, word: &str| {
        shown[at][field].as_str().is_some_and(|text| text.starts_with(word))
    };
    ensure!(says(0, "status", "exit code 0, ran for "), "{shown:?}");
    ensure!(says(2, "answer", "trap: ") && says(3, "status", "exit code 3"), "{shown:?}");
    let refused = page("localhost", &[("add", "5 7")]).await?;
    ensure!(
        refused[0]["answer"].as_str().is_some_and(|text| text.starts_with("connection: ")),
        "{refused:?}"
    );
    Ok(())
}
