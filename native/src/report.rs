//! What a machine gives for containing native programs, and what it lacks.

use serde::Deserialize;
use std::fmt;

/// One of the things that containment is made of. Its name in configurations is in kebab case, as [`Mechanism::name`]
/// gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// The program that builds sandboxes, 0.8 or newer.
    Bubblewrap,
    /// The shell that holds programs back until their limits are set.
    Shell,
    /// A filter of system calls.
    SystemCallFilter,
    /// Namespaces for files, processes, network and users.
    Namespaces,
    /// No capabilities and no way to get any.
    NoPrivileges,
    /// A network of its own, which leads nowhere.
    NoNetwork,
    /// A limit on the processes of one sandbox, whatever else its user runs.
    ProcessLimit,
    /// Memory and CPU time of all processes together.
    Measurement,
    /// The number of files in the work directory, and of mappings.
    FileCount,
    /// A second lock on signals, connections and debugging.
    Landlock,
}

/// How much depends on a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// There is no sandbox without it.
    Foundation,
    /// A promise is not kept without it. An operator may do without it, by name ([`crate::Config::accept`]).
    Promise,
    /// It makes a promise stronger that others keep.
    Extra,
}

/// What was found out about a mechanism.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It works, and what there is to say of it: a version, a user.
    Present(String),
    /// It does not, and why.
    Missing(String),
    /// What it stands on is missing.
    Untried,
}

/// A mechanism and what was found out about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// What was found out.
    pub state: State,
}

/// What a machine gives: every mechanism once, in the order of [`Mechanism::ALL`]. As text it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Mechanism {
    /// All of them, each after those that it stands on.
    pub const ALL: [Self; 10] = [
        Self::Bubblewrap,
        Self::Shell,
        Self::SystemCallFilter,
        Self::Namespaces,
        Self::NoPrivileges,
        Self::NoNetwork,
        Self::ProcessLimit,
        Self::Measurement,
        Self::FileCount,
        Self::Landlock,
    ];

    /// Its name in reports and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bubblewrap => "bubblewrap",
            Self::Shell => "shell",
            Self::SystemCallFilter => "system-call-filter",
            Self::Namespaces => "namespaces",
            Self::NoPrivileges => "no-privileges",
            Self::NoNetwork => "no-network",
            Self::ProcessLimit => "process-limit",
            Self::Measurement => "measurement",
            Self::FileCount => "file-count",
            Self::Landlock => "landlock",
        }
    }

    /// How much depends on it.
    pub fn need(self) -> Need {
        match self {
            Self::ProcessLimit | Self::Measurement | Self::FileCount => Need::Promise,
            Self::Landlock => Need::Extra,
            _ => Need::Foundation,
        }
    }

    /// What to install or to enable where it is missing.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Bubblewrap => "apt-get install bubblewrap, 0.8 or newer",
            Self::Shell => "apt-get install dash",
            Self::SystemCallFilter => {
                "x86_64, aarch64 or riscv64, and Linux 5.9 or newer with CONFIG_SECCOMP_FILTER"
            }
            Self::Namespaces => {
                "allow user namespaces to ordinary users: see sysctl kernel.unprivileged_userns_clone, \
                 user.max_user_namespaces and kernel.apparmor_restrict_unprivileged_userns"
            }
            Self::NoPrivileges | Self::NoNetwork => "report it: bubblewrap does not do what it was told",
            Self::ProcessLimit => "Linux 5.14 or newer",
            Self::Measurement => "/proc without hidepid, and a kernel with CONFIG_PROC_CHILDREN",
            Self::FileCount => "start the gateway with CAP_SYS_PTRACE, or as an ordinary user",
            Self::Landlock => "Linux 6.12 or newer, with landlock among the security modules (lsm=)",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Finding {
    /// Whether it works.
    pub fn is_present(&self) -> bool {
        matches!(self.state, State::Present(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Present(what) if what.is_empty() => write!(f, "{}", self.mechanism),
            State::Present(what) => write!(f, "{} ({what})", self.mechanism),
            State::Missing(why) => {
                write!(f, "no {}: {why} ({})", self.mechanism, self.mechanism.remedy())
            }
            State::Untried => write!(f, "{} not tried", self.mechanism),
        }
    }
}

impl Report {
    /// Of what was found out; what is not among it was not tried.
    pub(crate) fn new(found: Vec<Finding>) -> Self {
        let state = |mechanism| {
            let finding = found.iter().find(|finding| finding.mechanism == mechanism);
            finding.map_or(State::Untried, |finding| finding.state.clone())
        };
        let findings = Mechanism::ALL.map(|mechanism| Finding { mechanism, state: state(mechanism) });
        Self { findings: findings.to_vec() }
    }

    /// All mechanisms, for a table.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What native programs are refused for: of what is missing, what no promise is kept without. What could not be
    /// tried for that is no cause of its own.
    pub fn causes(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| {
            matches!(finding.state, State::Missing(_)) && finding.mechanism.need() != Need::Extra
        })
    }

    /// What could not be tried, since something that it stands on is missing.
    pub fn untried(&self) -> impl Iterator<Item = Mechanism> {
        self.findings
            .iter()
            .filter(|finding| finding.state == State::Untried)
            .map(|finding| finding.mechanism)
    }

    /// Whether every promise is kept. An [extra](Need::Extra) that is missing breaks none.
    pub fn is_complete(&self) -> bool {
        self.allows(&[])
    }

    /// Whether every promise is kept but those that hang on what is accepted to be missing.
    pub(crate) fn allows(&self, accepted: &[Mechanism]) -> bool {
        self.findings.iter().all(|finding| {
            finding.is_present()
                || match finding.mechanism.need() {
                    Need::Foundation => false,
                    Need::Promise => accepted.contains(&finding.mechanism),
                    Need::Extra => true,
                }
        })
    }

    /// Whether this one works.
    pub(crate) fn has(&self, mechanism: Mechanism) -> bool {
        self.findings.iter().any(|finding| finding.mechanism == mechanism && finding.is_present())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_complete() { "complete: " } else { "incomplete: " })?;
        // What is missing first.
        let tried = self.findings.iter().filter(|finding| finding.state != State::Untried);
        let (present, missing): (Vec<_>, Vec<_>) = tried.partition(|one| one.is_present());
        for (n, finding) in missing.into_iter().chain(present).enumerate() {
            write!(f, "{}{finding}", if n == 0 { "" } else { ", " })?;
        }
        match self.untried().count() {
            0 => Ok(()),
            count => write!(f, ", {count} not tried"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that has everything but these.
    fn without(missing: &[Mechanism]) -> Report {
        let found = Mechanism::ALL.map(|mechanism| {
            let state = if missing.contains(&mechanism) {
                State::Missing("why".into())
            } else {
                State::Present(String::new())
            };
            Finding { mechanism, state }
        });
        Report::new(found.to_vec())
    }

    #[test]
    fn only_promises_can_be_done_without_and_only_by_name() {
        for mechanism in Mechanism::ALL {
            let report = without(&[mechanism]);
            let need = mechanism.need();
            assert_eq!(report.is_complete(), need == Need::Extra, "{report}");
            assert_eq!(report.allows(&[mechanism]), need != Need::Foundation, "{report}");
            assert!(!report.has(mechanism));
        }
        let two = without(&[Mechanism::FileCount, Mechanism::Measurement]);
        assert!(!two.allows(&[Mechanism::FileCount]));
        assert!(!Report::new(Vec::new()).is_complete());
    }

    #[test]
    fn a_report_is_one_line_with_what_is_missing_first() {
        let report = without(&[Mechanism::FileCount]).to_string();
        assert!(report.starts_with("incomplete: no file-count: why (start the gateway with"), "{report}");
        assert!(report.ends_with(", measurement, landlock") && !report.contains('\n'), "{report}");
        assert!(without(&[]).to_string().starts_with("complete: bubblewrap, "));
    }

    /// Where bubblewrap is missing, that is all that an operator is to see to.
    #[test]
    fn what_is_not_tried_is_no_cause() {
        let missing = State::Missing("why".into());
        let found = [Mechanism::Bubblewrap, Mechanism::Landlock]
            .map(|mechanism| Finding { mechanism, state: missing.clone() });
        let report = Report::new(found.to_vec());
        let causes: Vec<Mechanism> = report.causes().map(|finding| finding.mechanism).collect();
        assert_eq!(causes, [Mechanism::Bubblewrap]);
        assert_eq!(report.untried().count(), 8);
        let line = report.to_string();
        assert!(!line.contains(Mechanism::Namespaces.remedy()), "{line}");
        assert!(line.ends_with(", 8 not tried"), "{line}");
        assert_eq!(without(&[]).causes().count(), 0);
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for mechanism in Mechanism::ALL {
            let quoted = format!("{:?}", mechanism.name());
            assert_eq!(serde_json::from_str::<Mechanism>(&quoted).unwrap(), mechanism);
        }
    }
}
