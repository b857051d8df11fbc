//! `docs/devices/arduino.md`, as its reader types it: the commands in a network of their own, in which `gateway.local`
//! is this machine, and the sketches in the simulator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use offload_tests::document::{Example, blocks, commands, example};
use offload_tests::{PATIENCE, built};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::board;

/// Runs `$0` until it says that it takes requests, then `$1`, and shows what `$1` shows.
const GATEWAY_THEN: &str = "mkfifo out; sh -c \"$0\" > out 2> log & exec 3< out; \
    while read line <&3; do case $line in listening*) break;; esac; done; sh -c \"$1\"; cat log >&2";

#[tokio::test]
async fn a_password_lets_mosquitto_in_and_the_first_sketch() -> Result<()> {
    let page = page()?;
    let gateway = commands(&page, "--listen 0.0.0.0:1883")?;
    let reader = Reader::new()?;
    let Example { commands: device, output: answer, .. } =
        example(&page, "mosquitto_rr -h gateway.local -u dev1")?;
    let firmware = board::example("Add", "add-of-the-page")?;
    // A terminal at which nobody types.
    let board = format!(
        "mkfifo typed; exec 4<> typed; {} {} 127.0.0.1 1883 0 <&4 > printed & until grep ^12 printed; do sleep 0.1; done",
        board::simulator()?.display(),
        firmware.display()
    );
    let shown = reader.types(&["sh", "-c", GATEWAY_THEN, &gateway, &format!("{device}{board}")]).await?;
    // Once by Mosquitto, once by the board.
    ensure!(words(&shown) == words(&answer.repeat(2)), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_lets_a_board_with_tls_in() -> Result<()> {
    let page = page()?;
    let gateway = commands(&page, "--device dev2")?;
    let Example { commands: device, output: answer, .. } = example(&page, "--cert keys/dev2.pem")?;
    let shown = Reader::new()?.types(&["sh", "-c", GATEWAY_THEN, &gateway, &device]).await?;
    ensure!(words(&shown) == words(&answer), "{shown}");
    Ok(())
}

/// The bridge has a file of its own in the page; that it stands is seen by an answer.
#[tokio::test]
async fn a_mosquitto_carries_a_board_without_tls() -> Result<()> {
    let page = page()?;
    let gateway = commands(&page, "--device site1")?;
    let beside = commands(&page, "mosquitto -c site1.conf")?;
    let ask = "until mosquitto_rr -h 127.0.0.2 -t localCode/dev1 -e result/dev1 -m '5 7' -W 2 2> /dev/null; do :; done";
    // The gateway is on the same machine here, and listens on another of its addresses. Root's Mosquitto becomes
    // another user, and Debian keeps servers where not everyone's `PATH` leads.
    let beside = beside.replace("listener 1883\n", "user root\nlistener 1883 127.0.0.2\n");
    let both = format!("(PATH=$PATH:/usr/sbin; {}) > bridge 2>&1 & {ask}", beside.trim_end());
    let shown = Reader::new()?.types(&["sh", "-c", GATEWAY_THEN, &gateway, &both]).await?;
    ensure!(words(&shown) == ["12"], "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_module_becomes_the_bytes_of_the_example() -> Result<()> {
    let page = page()?;
    let Example { commands, output: answer, .. } = example(&page, "od -A n")?;
    let reader = Reader::new()?;
    let shown = reader.types(&["sh", "-c", &commands]).await?;
    assert_eq!(shown, answer);
    let header = fs::read_to_string(crate::library().join("examples/SendModule/module.h"))?;
    let listed = header.split_once("PROGMEM = {").context("no array")?.1;
    assert_eq!(
        words(&fs::read_to_string(reader.folder.path().join("bytes.h"))?),
        words(listed.trim_end_matches("};\n"))
    );
    let digest = answer.split(' ').next().unwrap_or_default();
    let sketch = fs::read_to_string(crate::library().join("examples/SendModule/SendModule.ino"))?;
    ensure!(sketch.contains(&format!("\"sha256:{digest}\"")), "the example has another digest than {digest}");
    Ok(())
}

#[tokio::test]
async fn the_library_is_copied_as_the_ide_finds_it() -> Result<()> {
    let page = page()?;
    let reader = Reader::new()?;
    reader.types(&["sh", "-ec", &commands(&page, "cp -r clients/arduino")?]).await?;
    let copied = reader.folder.path().join("Arduino/libraries/Offload");
    for file in ["library.properties", "keywords.txt", "src/Offload.h", "examples/Add/Add.ino"] {
        ensure!(copied.join(file).is_file(), "{file} is missing");
    }
    Ok(())
}

/// Sketches in the page are those that compile, or parts of them.
#[test]
fn its_sketches_are_the_examples() -> Result<()> {
    let page = page()?;
    let examples: Vec<String> = crate::toolchain::sources(&crate::library().join("examples"), "ino")?
        .iter()
        .map(fs::read_to_string)
        .collect::<std::io::Result<_>>()?;
    let mut sketches = blocks(&page).filter(|block| block.language == "cpp").peekable();
    ensure!(sketches.peek().is_some(), "the page has no sketches");
    for sketch in sketches {
        ensure!(
            examples.iter().any(|example| example.contains(&sketch.text)),
            "no example has this:\n{}",
            sketch.text
        );
    }
    Ok(())
}

/// What is between white space.
fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn page() -> Result<String> {
    Ok(fs::read_to_string(repository().join("docs/devices/arduino.md"))?)
}

/// Somebody in a folder that looks like the repository, after `cargo xtask guests`; it is their home, too.
struct Reader {
    folder: TempDir,
}

impl Reader {
    fn new() -> Result<Reader> {
        let folder = TempDir::new()?;
        fs::write(folder.path().join("hosts"), "127.0.0.1 localhost gateway.local\n")?;
        fs::create_dir(folder.path().join("target"))?;
        let guests = built::guest("hello")?;
        let guests = guests.parent().context("a file lies in a folder")?;
        std::os::unix::fs::symlink(guests, folder.path().join("target/guests"))?;
        std::os::unix::fs::symlink(
            repository().join("clients").canonicalize()?,
            folder.path().join("clients"),
        )?;
        Ok(Reader { folder })
    }

    /// What the terminal shows.
    async fn types(&self, commands: &[&str]) -> Result<String> {
        let here = self.folder.path().to_str().context("a path is not UTF-8")?;
        let mut shell = Command::new("bwrap");
        shell
            .args(["--dev-bind", "/", "/", "--tmpfs", "/var/lib", "--bind", here, here, "--chdir", here])
            .args(["--ro-bind", &format!("{here}/hosts"), "/etc/hosts", "--setenv", "HOME", here])
            .args(["--unsetenv", "XDG_CONFIG_HOME", "--unsetenv", "XDG_STATE_HOME"])
            .args(["--unshare-net", "--unshare-pid", "--proc", "/proc", "--die-with-parent"])
            .args(commands)
            .env("PATH", built::search_path()?)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(PATIENCE, shell.output()).await.context("it does not end")??;
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
        Ok(shown)
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
