//! A board: an ATmega328P in a simulator, whose serial line is bridged to TCP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

use anyhow::{Context, Result, ensure};
use offload_tests::PATIENCE;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::{here, library, toolchain};

/// Rates of the serial line, in bits a second.
pub const SLOW: u32 = 9_600;
pub const FAST: u32 = 115_200;

/// Lines that the simulator prints of itself.
const OF_THE_SIMULATOR: &str = "Loaded ";

/// Switched off when dropped.
pub struct Board {
    simulator: Child,
    typed: ChildStdin,
    printed: Lines<BufReader<ChildStdout>>,
}

impl Board {
    /// A board with the sketch `Console`, on a line of this rate: it does what is typed.
    pub async fn console(address: SocketAddr, device: &str, baud: u32) -> Result<Board> {
        let definitions = [format!("-DBAUD={baud}"), format!("-DDEVICE=\"{device}\"")];
        let definitions = definitions.each_ref().map(String::as_str);
        let file = here().join("sketches/Console/Console.ino");
        let mut board = Board::start(&toolchain::sketch(&file, device, &definitions)?, address, 0)?;
        ensure!(board.line().await? == "ready");
        Ok(board)
    }

    /// A board with one of the library's examples, as it stands, that was started this often.
    pub fn example(name: &str, address: SocketAddr, built_as: &str, starts: u8) -> Result<Board> {
        Board::start(&example(name, built_as)?, address, starts)
    }

    fn start(firmware: &Path, address: SocketAddr, starts: u8) -> Result<Board> {
        let mut simulator = Command::new(simulator()?)
            .arg(firmware)
            .args([address.ip().to_string(), address.port().to_string(), starts.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Board {
            typed: simulator.stdin.take().context("stdin is a pipe")?,
            printed: BufReader::new(simulator.stdout.take().context("stdout is a pipe")?).lines(),
            simulator,
        })
    }

    /// The next line that it prints.
    pub async fn line(&mut self) -> Result<String> {
        loop {
            let line =
                timeout(PATIENCE, self.printed.next_line()).await.context("the board prints nothing")??;
            let line = line.context("the simulator has ended")?;
            if !line.is_empty() && !line.starts_with(OF_THE_SIMULATOR) {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    /// Types a line.
    pub async fn types(&mut self, line: &str) -> Result<()> {
        Ok(self.typed.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// Types a line, and returns what is printed then.
    pub async fn does(&mut self, line: &str) -> Result<String> {
        self.types(line).await?;
        self.line().await
    }

    /// Presses the reset button, and waits until the sketch has begun.
    pub async fn reset(&mut self) -> Result<()> {
        let id = self.simulator.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        kill_process(id.context("the simulator has ended")?, Signal::HUP)?;
        // In front of it may be what the reset has cut off in the middle of a line.
        ensure!(self.line().await?.ends_with("ready"));
        Ok(())
    }
}

/// Builds one of the library's examples.
pub fn example(name: &str, built_as: &str) -> Result<PathBuf> {
    toolchain::sketch(&library().join(format!("examples/{name}/{name}.ino")), built_as, &[])
}

/// The simulator.
pub fn simulator() -> Result<&'static Path> {
    static BUILT: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let source = here().join("simulator.c");
        let built = toolchain::program("gcc", &["-O2", "-lsimavr"], &[source], "simulator");
        built.map_err(|error| format!("{error:#}"))
    });
    BUILT.as_deref().map_err(anyhow::Error::msg)
}
