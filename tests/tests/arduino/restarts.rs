//! A gateway is killed while it runs a board's request, and started again.

use anyhow::{Result, ensure};
use offload_tests::deployment::Deployment;
use offload_tests::device::{Device, Version};
use offload_tests::on_each_broker;
use rustix::process::Signal;
use serde_json::Value;

use crate::answers::programs;
use crate::board::{Board, FAST, SLOW};

on_each_broker! {
    a_killed_gateway_is_waited_for with &watched()?,
}

/// By which it is seen that a request runs.
fn watched() -> Result<String> {
    Ok(format!("{}[mirror]\nenabled = true\n", programs()?))
}

/// At both rates: the boards connect again, ask again, and are answered.
async fn a_killed_gateway_is_waited_for(deployment: Deployment) -> Result<()> {
    let address = deployment.address();
    let Deployment { gateway, mosquitto, .. } = deployment;
    let broker = if mosquitto.is_some() { "m" } else { "e" };
    let mut boards = Vec::new();
    for (rate, baud) in [("slow", SLOW), ("fast", FAST)] {
        let name = format!("killed-{rate}-{broker}");
        let mut board = Board::console(address, &name, baud).await?;
        assert_eq!(board.does("run 16 60000 add 5 7").await?, "= 3 3 12");
        boards.push((name, board));
    }
    let mut bystander = Device::connect(address, Version::V5, &format!("by-{broker}")).await?;
    bystander.subscribe("gateway/+/jobs").await?;
    for (_, board) in &mut boards {
        board.types("run 16 60000 sleep 3000").await?;
    }
    let mut running = Vec::new();
    while running.len() < boards.len() {
        let line: Value = serde_json::from_slice(&bystander.message().await?.payload)?;
        if line["event"] == "request" && line["name"] == "sleep" {
            running.push(line["job"].clone());
        }
        ensure!(
            line["event"] == "request" || !running.contains(&line["job"]),
            "it is answered already: {line}"
        );
    }

    let flags = match &mosquitto {
        Some(mosquitto) => ["--broker".to_owned(), mosquitto.url()],
        None => ["--listen".to_owned(), address.to_string()],
    };
    let gateway = gateway.crash(Signal::KILL, &flags.each_ref().map(String::as_str), &watched()?).await?;
    for (_, board) in &mut boards {
        assert_eq!(board.line().await?, "= 6 6 awake");
        assert_eq!(board.does("run 16 60000 add 40 2").await?, "= 3 3 42");
    }
    gateway.stop(Signal::TERM).await
}
