//! Shell scripts pass shellcheck: a shell takes nearly everything for a program, and says nothing.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Finding;
use super::tree::{File, Tree};
use crate::process::find;
use crate::setup;

/// Installs shellcheck where it is missing and can be installed.
pub fn check(tree: &Tree, root: &Path) -> Result<Vec<Finding>> {
    let scripts: Vec<&File> =
        tree.files().iter().filter(|file| file.ours && file.is_shell_script()).collect();
    setup::ensure(&[setup::SHELLCHECK])?;
    let mut shellcheck = Command::new(find("shellcheck").context("no shellcheck")?);
    shellcheck.current_dir(root).arg("--format=gcc").args(scripts.iter().map(|file| &file.path));
    let output = shellcheck.output().context("cannot start shellcheck")?;
    let findings = read(&String::from_utf8_lossy(&output.stdout));
    if !output.status.success() && findings.is_empty() {
        bail!("shellcheck failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(findings)
}

/// Lines as compilers print them: `a.sh:3:5: warning: … [SC2086]`.
fn read(output: &str) -> Vec<Finding> {
    let finding = |line: &str| {
        let mut parts = line.splitn(4, ':');
        let (path, line, _column, message) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Finding {
            path: path.to_owned(),
            line: line.parse().ok()?,
            what: message.trim().to_owned(),
            remedy: "https://www.shellcheck.net/wiki has each code".to_owned(),
        })
    };
    output.lines().filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shellcheck_prints_becomes_findings() {
        let findings =
            read("native/a.sh:3:5: note: Double quote to prevent globbing: x. [SC2086]\nnothing else\n");
        assert_eq!(findings.len(), 1);
        assert_eq!((&*findings[0].path, findings[0].line), ("native/a.sh", 3));
        assert_eq!(findings[0].what, "note: Double quote to prevent globbing: x. [SC2086]");
    }
}
