//! The whole gateway as a web page sees it: over WebSocket, with mqtt.js.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use offload_tests::gateway::Gateway;
use tokio::process::Command;
use tokio::time::timeout;

const ORIGIN: &str = "https://panel.example";
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway that a page of [`ORIGIN`] may use without a name, and its URL.
async fn gateway() -> Result<(Gateway, String)> {
    let gateway = Gateway::embedded(&format!(
        "[access]\nanonymous = true\n[websocket]\naddress = \"127.0.0.1:0\"\norigins = [{ORIGIN:?}]\n"
    ))
    .await?;
    let log = gateway.log();
    let line =
        log.lines().find(|line| line.contains("MQTT over WebSocket")).context("it says where it listens")?;
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let url = format!("ws://{}/mqtt", address.context("the line has an address")?);
    Ok((gateway, url))
}

async fn page(url: &str, origin: &str, request: &[&str]) -> Result<Output> {
    let mut node = Command::new("node");
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/web/ask.cjs"))
        .arg(built::node()?)
        .args([url, origin, "page"]);
    node.args(request).kill_on_drop(true);
    Ok(timeout(PATIENCE, node.output()).await.context("mqtt.js has not finished")??)
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_is_answered_and_no_other() -> Result<()> {
    let (_gateway, url) = gateway().await?;
    let answered = page(&url, ORIGIN, &["5 7"]).await?;
    assert_eq!(String::from_utf8_lossy(&answered.stdout), "12\n", "{answered:?}");
    let refused = page(&url, "https://evil.example", &["5 7"]).await?;
    ensure!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    Ok(())
}

/// Any page can reach loopback, so none may have C built because it does.
#[tokio::test]
async fn a_page_sends_no_source() -> Result<()> {
    let (_gateway, url) = gateway().await?;
    let source = "add--------int main() { return 0; }----gcc <name>.c -o <name>";
    let refused = page(&url, ORIGIN, &["", source]).await?;
    let answer = String::from_utf8_lossy(&refused.stdout);
    assert!(answer.starts_with("error: unauthorized: "), "{answer}");
    Ok(())
}
