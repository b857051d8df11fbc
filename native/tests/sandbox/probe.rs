//! What is found out about a machine before it takes strangers' programs.

use crate::sandbox::{GCC, build_in, limits, sandbox, sandbox_of};
use offload_native::{Config, Ending, Input, Mechanism, Report, Sandbox, State};

fn refused(config: Config) -> Report {
    let unavailable = Sandbox::probe(config).unwrap_err();
    assert!(!unavailable.report.is_complete(), "{unavailable}");
    unavailable.report
}

fn state(report: &Report, mechanism: Mechanism) -> &State {
    &report.findings().iter().find(|finding| finding.mechanism == mechanism).unwrap().state
}

#[test]
fn this_machine_contains_programs_completely() {
    let report = sandbox().report();
    assert!(report.is_complete(), "{report}");
    assert!(report.to_string().starts_with("complete: "), "{report}");
    let State::Present(user) = state(report, Mechanism::Namespaces) else { panic!("{report}") };
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(user.as_str(), if is_root { "as user 1879100000" } else { "as the gateway's own user" });
}

#[test]
fn a_machine_without_bubblewrap_says_so() {
    let config = Config { bubblewrap: "/nowhere/bwrap".into(), ..Config::default() };
    let report = refused(config);
    assert_eq!(state(&report, Mechanism::Bubblewrap), &State::Missing("/nowhere/bwrap is not there".into()));
    assert_eq!(state(&report, Mechanism::Namespaces), &State::Untried);
    assert!(report.to_string().contains("apt-get install bubblewrap"), "{report}");
    // Nobody can do without it.
    let accepting =
        Config { bubblewrap: "/bin/false".into(), accept: Mechanism::ALL.to_vec(), ..Config::default() };
    let report = refused(accepting);
    assert_eq!(state(&report, Mechanism::Bubblewrap), &State::Missing("it does not tell its version".into()));
}

#[test]
fn a_sandbox_that_cannot_be_set_up_says_why() {
    let report = refused(Config { toolchain: Vec::new(), ..Config::default() });
    let State::Missing(why) = state(&report, Mechanism::Namespaces) else { panic!("{report}") };
    assert!(why.contains("bwrap: execvp"), "{why}");
    assert_eq!(state(&report, Mechanism::ProcessLimit), &State::Untried);
}

/// Numbers of files are read with a right that root may lack, which is so for root without it.
#[tokio::test]
async fn what_is_missing_can_be_accepted_by_name() {
    const ROLE: &str = "a root without CAP_SYS_PTRACE";
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if std::env::var(crate::identities::ROLE).as_deref() != Ok(ROLE) {
        let mut setpriv = std::process::Command::new("setpriv");
        setpriv.args(["--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"]);
        setpriv.env(crate::identities::ROLE, ROLE);
        let name = "probe::what_is_missing_can_be_accepted_by_name";
        let output = crate::identities::again(setpriv, &["--exact", name]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let report = refused(Config::default());
    let missing = report.findings().iter().filter(|finding| !finding.is_present());
    assert_eq!(
        missing.map(|finding| finding.mechanism).collect::<Vec<_>>(),
        [Mechanism::FileCount],
        "{report}"
    );
    assert!(report.to_string().starts_with("incomplete: no file-count: "), "{report}");

    let sandbox = sandbox_of(Config { accept: vec![Mechanism::FileCount], ..Config::default() });
    assert!(!sandbox.report().is_complete());
    let program = build_in(&sandbox, "int main() { return 5; }", GCC).await.unwrap();
    let outcome = sandbox.run(&program, Input::default(), limits()).await.unwrap();
    assert_eq!(outcome.ending, Ending::Exit(5));
}
