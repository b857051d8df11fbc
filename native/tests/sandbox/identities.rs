//! Who runs the gateway: root, or an ordinary user.

use std::fs::File;
use std::process::Command;

/// Set for a process of its own that these tests start.
pub const ROLE: &str = "OFFLOAD_NATIVE_TEST_ROLE";

/// This very test program once more, as standard input: it may lie where another user cannot look.
pub fn again(mut command: Command, args: &[&str]) -> Command {
    let program = File::open("/proc/self/exe").unwrap();
    command.arg("/proc/self/fd/0").args(args).stdin(program);
    command
}

/// Who is no root already has run all tests as an ordinary user.
#[test]
fn all_holds_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let output = again(setpriv, &[]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
