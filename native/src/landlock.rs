//! A second lock around bubblewrap, of another make than its namespaces: Landlock's.
//!
//! Whatever is started in a domain cannot connect or listen by TCP, reach abstract sockets, send signals or attach a
//! debugger beyond it. Landlock's rules for files are of no use here: a process that has any can mount nothing, so
//! bubblewrap could not build the file system that is the better rule.

use landlock::{ABI, Access, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetError, Scope};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// What sandboxes are started in; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Domain(Option<Arc<OwnedFd>>);

/// How much of it the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strength {
    /// TCP, signals, abstract sockets, debugging (Linux 6.12).
    Full,
    /// TCP and debugging (Linux 6.7).
    WithoutScopes,
    /// Nothing.
    None,
}

impl Domain {
    /// The strongest that this kernel has.
    pub fn new() -> (Self, Strength) {
        let net = || {
            Ruleset::default()
                .set_compatibility(CompatLevel::HardRequirement)
                .handle_access(AccessNet::from_all(ABI::V4))
        };
        let create =
            |ruleset: Result<Ruleset, RulesetError>| ruleset.and_then(Ruleset::create).map(Option::from);
        for (rules, strength) in [
            (net().and_then(|rules| rules.scope(Scope::from_all(ABI::V6))), Strength::Full),
            (net(), Strength::WithoutScopes),
        ] {
            if let Ok(Some(descriptor)) = create(rules) {
                return (Self(Some(Arc::new(descriptor))), strength);
            }
        }
        (Self(None), Strength::None)
    }

    /// Puts the calling thread, and all that it starts, into it for good, without new privileges. Makes system calls
    /// and nothing else, so it may be called between fork and exec.
    pub fn enter(&self) -> io::Result<()> {
        let Some(descriptor) = &self.0 else { return Ok(()) };
        // SAFETY: takes numbers alone.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is a rule set, and open as long as `self` is.
        if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, descriptor.as_raw_fd(), 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    /// Whether `script` succeeds, outside of the domain and inside.
    fn outside_and_inside(domain: &Domain, script: &str) -> [bool; 2] {
        [Domain::default(), domain.clone()].map(|domain| {
            let mut shell = Command::new("bash");
            shell.args(["-c", script]).stderr(Stdio::null());
            // SAFETY: makes system calls and nothing else.
            unsafe { shell.pre_exec(move || domain.enter()) };
            shell.status().unwrap().success()
        })
    }

    #[test]
    fn a_domain_keeps_signals_and_connections_in() {
        let (domain, strength) = Domain::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = format!(": </dev/tcp/127.0.0.1/{}", listener.local_addr().unwrap().port());
        let signal = format!("kill -0 {}", std::process::id());
        assert_eq!(outside_and_inside(&domain, &connect), [true, strength == Strength::None]);
        assert_eq!(outside_and_inside(&domain, &signal), [true, strength != Strength::Full]);
        // Within it everything goes on.
        assert_eq!(outside_and_inside(&domain, "sleep 60 & kill -0 $! && kill $!"), [true, true]);
    }
}
