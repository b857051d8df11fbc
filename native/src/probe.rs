//! Finds out what this machine gives, by doing it: each mechanism is tried in a small sandbox of its own.

use crate::bwrap_args::BwrapArgs;
use crate::error::{Error, Unavailable};
use crate::landlock::{Domain, Strength};
use crate::measurer::Measured;
use crate::outcome::{Ending, Limit, Outcome};
use crate::output::{Excess, OnStdout};
use crate::report::{Finding, Mechanism, Report, State};
use crate::sandbox::Sandbox;
use crate::syscalls::{Calls, Filters};
use crate::tools::{shell, tool};
use crate::{Config, SandboxLimits, job, usage};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The oldest bubblewrap that knows `--disable-userns`.
const OLDEST_BUBBLEWRAP: (u32, u32) = (0, 8);

/// Longest wait for one trial: it comes after all else on a machine that may be starting much else.
const TRIAL: Duration = Duration::from_secs(30);

impl Sandbox {
    /// Finds out what this machine gives, by setting up four sandboxes (some 10 ms each). Blocks.
    ///
    /// # Errors
    ///
    /// Where containment is not complete, nor as complete as [`Config::accept`] asks for.
    pub fn probe(config: Config) -> Result<Self, Unavailable> {
        let mut found = Findings::default();
        let Some(mut sandbox) = found.foundation(config) else {
            return Err(Unavailable { report: Report::new(found.0) });
        };
        found.trials(&sandbox);
        let report = Report::new(found.0);
        if !report.allows(&sandbox.config.accept) {
            return Err(Unavailable { report });
        }
        sandbox.measured =
            Measured { usage: report.has(Mechanism::Measurement), files: report.has(Mechanism::FileCount) };
        sandbox.report = report;
        Ok(sandbox)
    }
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    /// Notes what was found, and hands it on if there is something.
    fn note<T>(&mut self, mechanism: Mechanism, found: Result<(T, String), String>) -> Option<T> {
        let (found, state) = match found {
            Ok((found, what)) => (Some(found), State::Present(what)),
            Err(why) => (None, State::Missing(why)),
        };
        self.0.push(Finding { mechanism, state });
        found
    }

    /// What has to be there before anything can be tried. Notes all of it, also after the first that is missing.
    fn foundation(&mut self, config: Config) -> Option<Sandbox> {
        let bubblewrap = self.note(Mechanism::Bubblewrap, bubblewrap(&config.bubblewrap));
        let shell = std::fs::canonicalize("/bin/sh").map_err(|error| error.to_string());
        let shell = self.note(Mechanism::Shell, shell.map(|path| (path, String::new())));
        let filters = Filters::new().map_err(|error| error.to_string()).and_then(|filters| {
            // A sandbox is let go when it is seen to have it.
            usage::filters(rustix::process::getpid()).map_err(|error| error.to_string())?;
            Ok((filters, String::new()))
        });
        let filters = self.note(Mechanism::SystemCallFilter, filters);
        let (domain, strength) = Domain::new();
        let strength = match strength {
            Strength::Full => Ok(String::new()),
            Strength::WithoutScopes => Ok("not for signals and abstract sockets".to_owned()),
            Strength::None => Err("the kernel has none, or one too old".to_owned()),
        };
        self.note(Mechanism::Landlock, strength.map(|what| ((), what)));
        let uid = rustix::process::geteuid().is_root().then_some(config.uid);
        Some(Sandbox {
            config,
            bubblewrap: bubblewrap?,
            shell: shell?,
            uid,
            filters: filters?,
            tar: tool("tar"),
            domain,
            measured: Measured { usage: false, files: false },
            report: Report::new(Vec::new()),
        })
    }

    /// What sandboxes show.
    fn trials(&mut self, sandbox: &Sandbox) {
        let all = &sandbox.config.build;
        let none = Measured { usage: false, files: false };
        let trial = |script: &str, measured, limits: SandboxLimits| {
            let outcome = sandbox.try_out(script, measured, SandboxLimits { wall: TRIAL, ..limits });
            outcome.map_err(|error| error.to_string())
        };

        let shown =
            trial("cat /proc/self/status; readlink /proc/self/ns/net", none, all.clone()).and_then(succeeded);
        let user = match sandbox.uid {
            Some(uid) => format!("as user {uid}"),
            None => "as the gateway's own user".to_owned(),
        };
        let Some(shown) = self.note(Mechanism::Namespaces, shown.map(|shown| (shown, user))) else { return };
        self.note(Mechanism::NoPrivileges, no_privileges(&shown).map(|()| ((), String::new())));
        let own = std::fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string());
        let network = own.and_then(|own| no_network(&shown, &own.to_string_lossy()));
        self.note(Mechanism::NoNetwork, network.map(|()| ((), String::new())));

        // Each must end at its limit, and would end well without it.
        let mut limited = |mechanism, script, measured, limits, expected: Ending| {
            let ended = trial(script, measured, limits).and_then(|outcome| match outcome.ending {
                ending if ending == expected => Ok(((), String::new())),
                ending => Err(format!("a trial over its limit ended with {ending:?}")),
            });
            self.note(mechanism, ended);
        };
        // It is the second process in the shell's place, and what it would start the third.
        let few = SandboxLimits { processes: 2, ..all.clone() };
        limited(Mechanism::ProcessLimit, "exec setsid --fork /bin/true", none, few, Ending::Exit(1));
        let little = SandboxLimits { memory: 1, ..all.clone() };
        let usage = Measured { usage: true, files: false };
        limited(Mechanism::Measurement, "sleep 60", usage, little, Ending::Limit(Limit::Memory));
        let one = SandboxLimits { files: 1, ..all.clone() };
        let files = Measured { usage: false, files: true };
        limited(Mechanism::FileCount, ": >1; : >2; sleep 60", files, one, Ending::Limit(Limit::Files));
    }
}

impl Sandbox {
    fn try_out(&self, script: &str, measured: Measured, limits: SandboxLimits) -> Result<Outcome, Error> {
        let mut bwrap = BwrapArgs::new(&self.config.toolchain, limits.work_dir)?;
        bwrap.proc();
        let (abandoned, _waiting) = io::pipe()?;
        let command = shell(script, &[]);
        let (files, stdin) = (Vec::new(), Vec::new());
        let (calls, prepare, stderr, on_stdout) = (Calls::Run, "", Excess::Dropped, OnStdout::default());
        let work = job::Work { bwrap, calls, files, prepare, command, stdin, limits, stderr, on_stdout };
        job::Job { measured, ..self.job(work, abandoned) }.run()
    }
}

fn succeeded(outcome: Outcome) -> Result<String, String> {
    match outcome.ending {
        Ending::Exit(0) => Ok(String::from_utf8_lossy(&outcome.stdout).into_owned()),
        ending => Err(format!("a trial ended with {ending:?}: {}", String::from_utf8_lossy(&outcome.stderr))),
    }
}

/// From proc(5)'s status.
fn no_privileges(shown: &str) -> Result<(), String> {
    let is = |line: &str, value: &str| {
        let rest = shown.lines().find_map(|one| one.strip_prefix(line)).map(str::trim);
        (rest == Some(value)).then_some(()).ok_or_else(|| format!("{line} {}", rest.unwrap_or("is missing")))
    };
    for capabilities in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        is(capabilities, "0000000000000000")?;
    }
    is("NoNewPrivs:", "1")?;
    is("Seccomp:", "2")
}

/// From the name of its network namespace, and of ours.
fn no_network(shown: &str, own: &str) -> Result<(), String> {
    match shown.lines().find(|line| line.starts_with("net:[")) {
        Some(inside) if inside != own => Ok(()),
        Some(_) => Err("it is in the network of the gateway".to_owned()),
        None => Err("its network has no name".to_owned()),
    }
}

/// Where bubblewrap is, and its version.
fn bubblewrap(name: &Path) -> Result<(PathBuf, String), String> {
    let path = find(name).ok_or_else(|| format!("{} is not there", name.display()))?;
    let output =
        Command::new(&path).arg("--version").env_clear().output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.trim().strip_prefix("bubblewrap ").ok_or("it does not tell its version")?;
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_BUBBLEWRAP => Ok((path, version.to_owned())),
        _ => Err(format!("it is version {version}")),
    }
}

/// A path as it stands, a bare name in `PATH`: only here, since sandboxes are started without an environment.
fn find(command: &Path) -> Option<PathBuf> {
    if command.components().count() > 1 {
        return command.is_file().then(|| command.to_owned());
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(command))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sandbox_shows_is_believed_only_in_full() {
        let capabilities = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n\
                            CapAmb:\t0000000000000000\n";
        let good = format!("{capabilities}NoNewPrivs:\t1\nSeccomp:\t2\n");
        assert_eq!(no_privileges(&good), Ok(()));
        for (from, to) in
            [("NoNewPrivs:\t1", "NoNewPrivs:\t0"), ("Seccomp:\t2", ""), ("CapBnd:\t00", "CapBnd:\t0f")]
        {
            assert!(no_privileges(&good.replace(from, to)).is_err(), "{to}");
        }
        assert_eq!(no_network("Uid:\nnet:[7]\n", "net:[1]"), Ok(()));
        assert!(no_network("Uid:\nnet:[1]\n", "net:[1]").is_err());
        assert!(no_network("", "net:[1]").is_err());
    }
}
