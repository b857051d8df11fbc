//! The pages of `docs/devices/`, from nothing to the first answer as they are printed: each in an empty folder, on a
//! network of its own on which the gateway's name is this machine's.
//!
//! A block of `sh` that ends with `offload-rt serve` is the gateway's: it goes on beside the others, until the next one
//! of its kind. All others are the device's, and what they show is the block of `text` behind them.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use offload_tests::document::{Block, blocks};
use offload_tests::{PATIENCE, built};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

#[tokio::test]
async fn python() -> Result<()> {
    page("python").await
}

#[tokio::test]
async fn raspberry_pi() -> Result<()> {
    page("raspberry-pi").await
}

#[tokio::test]
async fn linux_c() -> Result<()> {
    page("linux-c").await
}

#[tokio::test]
async fn browser() -> Result<()> {
    page("browser").await
}

/// What `sudo apt-get install` does here: the packages are installed already, or the page names what setup does not.
const SUDO: &str =
    "#!/bin/sh\nset -e\n[ \"$1 $2 $3\" = 'apt-get install -y' ]\nshift 3\ndpkg -s \"$@\" > /dev/null\n";

/// A gateway's block goes on in the background, and the next step begins when it takes requests. All ends with the
/// page.
const FUNCTIONS: &str = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n\
    stop() { [ -z \"$gateway\" ] || { kill $gateway; wait $gateway; }; gateway=; }\n\
    serve() {\n    stop\n    sh -ec \"$1\" > out 2> log & gateway=$!\n    \
    until grep -q '^listening' out; do kill -0 $gateway || { cat log; exit 1; }; sleep 0.05; done\n}\n";

/// Runs a page's blocks in their order.
async fn page(name: &str) -> Result<()> {
    let text = fs::read_to_string(repository().join(format!("docs/devices/{name}.md")))?;
    let (mut script, mut expected) = (FUNCTIONS.to_owned(), String::new());
    for Block { language, text: block, .. } in blocks(&text) {
        match language {
            "sh" if block.contains("offload-rt serve") => {
                // The shell makes way for the gateway, so that this is what is stopped.
                let block =
                    block.replace("offload-rt serve", "exec setpriv --pdeathsig KILL offload-rt serve");
                writeln!(script, "serve '{}'", block.replace('\'', r"'\''"))?;
            }
            "sh" => script += &block,
            "text" => expected += &block,
            _ => {}
        }
    }
    script += "stop\n";
    ensure!(!expected.is_empty(), "the page shows nothing");
    let machine = Machine::new()?;
    let shown = machine.run(&script).await?;
    assert_eq!(shown, expected, "docs/devices/{name}.md");
    Ok(())
}

/// An empty folder, but for what a page's reader has: the clients' folders, and the programs.
struct Machine {
    folder: TempDir,
    path: OsString,
}

impl Machine {
    fn new() -> Result<Machine> {
        let folder = TempDir::new()?;
        let here = |name: &str| folder.path().join(name);
        fs::create_dir(here("bin"))?;
        fs::write(here("bin/sudo"), SUDO)?;
        fs::set_permissions(here("bin/sudo"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        // Debian's, as a Raspberry Pi has it, with the packages of Debian.
        symlink(built::debians_python()?, here("bin/python3"))?;
        for program in ["offload-rt", "offload-client"] {
            symlink(built::program(program)?.canonicalize()?, here("bin").join(program))?;
        }
        fs::write(here("hosts"), "127.0.0.1 localhost gateway.local\n")?;
        copy(&repository().join("clients"), &here("clients"))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([here("bin")].into_iter().chain(std::env::split_paths(&path)))?;
        Ok(Machine { folder, path })
    }

    /// Runs a script to its end, and returns what it shows.
    async fn run(&self, script: &str) -> Result<String> {
        let here = self.folder.path().to_str().context("a path is not UTF-8")?;
        let mut shell = Command::new("bwrap");
        shell
            .args([
                "--dev-bind",
                "/",
                "/",
                "--tmpfs",
                "/var/lib",
                "--ro-bind",
                "/var/lib/dpkg",
                "/var/lib/dpkg",
            ])
            .args([
                "--bind",
                here,
                here,
                "--chdir",
                here,
                "--ro-bind",
                &format!("{here}/hosts"),
                "/etc/hosts",
            ])
            // Not of processes: the gateway could not make its sandbox within.
            .args(["--unshare-net", "--die-with-parent"])
            .args(["bash", "-ec", script])
            .env("PATH", &self.path)
            .env("HOME", here)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_STATE_HOME")
            // What pip and npm would fetch is here already.
            .envs([
                ("PIP_NO_INDEX", "1"),
                ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
                ("npm_config_offline", "true"),
            ])
            .env("PIP_FIND_LINKS", built::wheels()?)
            .env("npm_config_cache", built::npm_cache()?)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(PATIENCE, shell.output()).await.context("it does not end")??;
        let errors = String::from_utf8_lossy(&output.stderr);
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        ensure!(output.status.success(), "{output:?}: {errors}; the gateway's log: {log}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Without what a build or an installation has left there.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let leave_out =
            ["node_modules", "target", "__pycache__", "build", "rust"].iter().any(|left| name == **left);
        if leave_out {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(name))?;
        } else {
            fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}
