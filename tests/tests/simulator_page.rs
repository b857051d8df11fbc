//! The simulator as a page in Chromium: it plays, a cable is pulled and put back, on a desktop and on a phone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use offload_tests::built;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

/// For all that is done with the page, in both sizes.
const PATIENCE: Duration = Duration::from_secs(400);

#[tokio::test]
async fn a_cable_is_pulled_in_a_page() -> Result<()> {
    let page = format!("file://{}", built::simulator_page()?.display());
    let mut node = Command::new("node");
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/web/simulator.cjs")).arg(built::node()?).arg(page);
    let output = timeout(PATIENCE, node.kill_on_drop(true).output()).await.context("it does not end")??;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && stderr.is_empty(), "{stderr}");
    let lines = String::from_utf8(output.stdout)?;
    let steps: Vec<Value> = lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(steps.len(), 2 * 5, "{lines}");
    let count = |step: &Value, name: &str| step[name].as_u64().unwrap_or_default();
    for of_size in steps.chunks(5) {
        let [watched, pulled, plugged, paused, refused] = of_size else { unreachable!("there are five") };
        for step in of_size {
            let drawn = [&step["fits"], &step["map"], &step["plot"]];
            assert_eq!(drawn, [&json!(true); 3], "{step}");
            assert_eq!((&step["name"], count(step, "failed")), (&json!("three halls"), 0), "{step}");
        }
        assert_eq!((&watched["cable"], &watched["refused"]), (&json!("Pull cable 1"), &json!("")));
        assert_eq!(pulled["cable"], "Plug in cable 1");
        // The other gateways go on, and nothing is lost of what came while there was no cable.
        ensure!(count(pulled, "ok") > count(watched, "ok"), "{lines}");
        ensure!(count(plugged, "ok") > count(pulled, "made") - count(plugged, "open"), "{lines}");
        ensure!(count(paused, "made") == count(paused, "ok") + count(paused, "open"), "{lines}");
        let says = refused["refused"].as_str().unwrap_or_default();
        ensure!(says.contains("duration"), "{says}");
    }
    Ok(())
}
