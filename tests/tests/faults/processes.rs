//! The processes below a gateway, as `/proc` has them.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use offload_tests::PATIENCE;
use offload_tests::gateway::Gateway;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

/// How often `/proc` is looked at for what has to come.
const POLL: std::time::Duration = std::time::Duration::from_millis(2);

/// A process below another one.
pub struct Descendant {
    pub id: i32,
    /// Its name, as the kernel has it.
    pub name: String,
    /// Its command line, with spaces between the arguments.
    pub command: String,
}

/// All processes that a process has started, and that these have started.
fn descendants(of: i32) -> Result<Vec<Descendant>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name is in parentheses, and may hold some.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let parent = after_name.split(' ').nth(1).and_then(|parent| parent.parse::<i32>().ok());
        parents.extend(parent.map(|parent| (id, parent)));
    }
    let mut known = vec![of];
    let mut at = 0;
    while let Some(parent) = known.get(at).copied() {
        known.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    let text = |id: i32, file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
    let descendant = |id: i32| Descendant {
        id,
        name: text(id, "comm").trim_end().to_owned(),
        command: text(id, "cmdline").replace('\0', " "),
    };
    Ok(known.into_iter().skip(1).map(descendant).collect())
}

/// Waits until the gateway has a process like this below it, and kills it.
pub async fn kill_one(gateway: &Gateway, what: &str, is_meant: impl Fn(&Descendant) -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let of = gateway.id()?.cast_signed();
    loop {
        if let Some(found) = descendants(of)?.into_iter().find(&is_meant) {
            let id = Pid::from_raw(found.id).context("a process has a number")?;
            return kill_process(id, Signal::KILL).with_context(|| format!("cannot kill {what}"));
        }
        ensure!(Instant::now() < deadline, "there never was {what}; the log: {}", gateway.log());
        sleep(POLL).await;
    }
}
