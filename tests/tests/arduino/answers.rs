//! Requests from a simulated board, answered by a gateway: on lines of 9 600 and 115 200 baud.

use anyhow::{Result, ensure};
use offload_tests::deployment::Deployment;
use offload_tests::device::Version;
use offload_tests::gateway::Gateway;
use offload_tests::password_file::set_password;
use offload_tests::{built, cbor, on_each_broker};
use serde_json::json;
use tempfile::TempDir;

use crate::board::{Board, FAST, SLOW};

on_each_broker! {
    a_slow_line with &programs()?,
    a_fast_line with &programs()?,
    each_start_has_ids_of_its_own with &programs()?,
    the_examples_print_what_they_say with &programs()?,
}

/// A gateway's configuration with the programs that the sketches name.
pub fn programs() -> Result<String> {
    let mut configuration = String::new();
    for name in ["add", "primes", "sleep"] {
        let (file, default) = (built::guest(name)?, name == "add");
        configuration += &format!("[[program]]\nname = \"{name}\"\nfile = {file:?}\ndefault = {default}\n");
    }
    Ok(configuration)
}

async fn a_slow_line(deployment: Deployment) -> Result<()> {
    let mut board = Board::console(deployment.address(), &name(&deployment, "slow"), SLOW).await?;
    all_kinds(&deployment, &mut board, "1000", 2_000).await
}

async fn a_fast_line(deployment: Deployment) -> Result<()> {
    let mut board = Board::console(deployment.address(), &name(&deployment, "fast"), FAST).await?;
    all_kinds(&deployment, &mut board, "17000", 60_000).await
}

/// Each kind of request and of answer: the primes below `limit` in parts, and a module with this many bytes of padding.
async fn all_kinds(deployment: &Deployment, board: &mut Board, limit: &str, padding: usize) -> Result<()> {
    assert_eq!(board.does("run 16 60000 add 5 7").await?, "= 3 3 12");
    assert_eq!(board.does("run 16 60000 add 40 2").await?, "= 3 3 42");
    assert_eq!(board.does("run 16 60000 add x").await?, "! -25 add: not a 64-bit integer: x");
    let unknown = board.does("run 16 60000 no-such-program").await?;
    ensure!(unknown.starts_with("! -18 no program `no-such-program`"), "{unknown}");

    let mut pc = deployment.device(Version::V311, "pc").await?;
    let request = json!({ "program": "primes", "args": [limit], "reply": "stdout" });
    let whole = pc.ask("localCode/pc", request.to_string()).await?.payload;
    let checksum = whole.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let parts = whole.len().div_ceil(200);
    let expected = format!("= {} {parts} {checksum}", whole.len());
    assert_eq!(board.does(&format!("sum 200 60000 primes {limit}")).await?, expected);
    // A first part says how much there is.
    let first = board.does("run 5 60000 add 1000000 1").await?;
    assert_eq!(first, "= 5 8 10000");

    // By a digest of what was never sent; then from flash without one, and from a callback.
    assert_eq!(board.does("digest 16 60000 0 4 5").await?, "= 2 2 9");
    assert_eq!(board.does("digest 16 60000 0 4 6").await?, "= 3 3 10");
    assert_eq!(board.does("module 16 60000 0 5 5").await?, "= 3 3 10");
    assert_eq!(board.does(&format!("module 16 120000 {padding} 5 6")).await?, "= 3 3 11");
    Ok(())
}

/// The reset button is no reason to get an old answer.
async fn each_start_has_ids_of_its_own(deployment: Deployment) -> Result<()> {
    let name = name(&deployment, "resets");
    let mut bystander = deployment.device(Version::V311, &name).await?;
    let mut board = Board::console(deployment.address(), &format!("{name}x"), FAST).await?;
    bystander.subscribe(&format!("result/{name}x")).await?;
    let mut ids = Vec::new();
    for _ in 0..3 {
        for _ in 0..2 {
            assert_eq!(board.does("run 16 60000 add 5 7").await?, "= 3 3 12");
            let answer = cbor::read(&bystander.message().await?)?;
            ids.push(answer["id"].as_str().unwrap_or_default().to_owned());
        }
        board.reset().await?;
    }
    assert_eq!(ids, ["1-1", "1-2", "2-1", "2-2", "3-1", "3-2"]);
    Ok(())
}

/// As they stand, but that the board's line is in the place of Ethernet.
async fn the_examples_print_what_they_say(deployment: Deployment) -> Result<()> {
    let examples = [
        ("Add", &["12"][..]),
        ("SendModule", &["hello!"]),
        ("NonBlocking", &["awake", "awake"]),
        ("LongAnswer", &["2", "3", "5", "7", "11", "13", "17", "19", "23", "29", "31"]),
    ];
    // The same board, which counts its starts: with the same count a request would have the id of another one.
    for (starts, (example, lines)) in (0..).zip(examples) {
        let mut board = Board::example(example, deployment.address(), &name(&deployment, example), starts)?;
        for line in lines {
            assert_eq!(board.line().await?, *line, "{example}");
        }
    }
    Ok(())
}

/// A user name and a password let the board in, and a wrong password is an error that says so.
#[tokio::test]
async fn a_password_lets_the_board_in() -> Result<()> {
    let folder = TempDir::new()?;
    let passwords = folder.path().join("passwords");
    set_password(&passwords, "board", "its password").await?;
    let configuration = format!("[access]\npasswords = {passwords:?}\n{}", programs()?);
    let gateway = Gateway::embedded(&configuration).await?;
    let mut board = Board::console(gateway.address()?, "board", FAST).await?;
    assert_eq!(board.does("run 16 60000 add 5 7").await?, "= 3 3 12");

    set_password(&passwords, "board", "another password").await?;
    let mut board = Board::console(gateway.address()?, "board", FAST).await?;
    gateway.hang_up().await?;
    assert_eq!(board.does("run 16 60000 add 5 7").await?, "! -3 the broker refuses this device");
    Ok(())
}

/// A board's name, for this broker alone: what is built for the other one is another firmware.
fn name(deployment: &Deployment, what: &str) -> String {
    format!("{what}-{}", if deployment.mosquitto.is_some() { "m" } else { "e" })
}
