//! What answers to the names of compilers in a build for this machine.

use crate::bwrap_args::{BwrapArgs, FileInside};
use crate::tools::{TOOL_FOLDERS, stand_in, tool};
use serde::Deserialize;

/// The folder of the scripts that stand in for compilers, inside.
const TOOLS: &str = "/compilers";

/// Names of C compilers, and of others.
const C: [&str; 5] = ["cc", "gcc", "clang", "c89", "c99"];
const OTHERS: [&str; 3] = ["c++", "g++", "clang++"];

/// The scripts that stand in for compilers.
const UNOPTIMIZED: &str = include_str!("compilers/unoptimized.sh");
const TCC: &str = include_str!("compilers/tcc.sh");

/// What compiles where a build for this machine calls a compiler: an operator's choice between a fast first answer and
/// a fast program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compilers {
    /// The compiler that is called.
    #[default]
    AsCalled,
    /// The same, but it does not optimize, whatever it is told: large programs are built sooner.
    Unoptimized,
    /// tcc for C, in a fifth of gcc's time; the called one for what tcc does not know, and for everything else.
    Tcc,
}

impl Compilers {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Compilers::AsCalled => "as-called",
            Compilers::Unoptimized => "unoptimized",
            Compilers::Tcc => "tcc",
        }
    }

    /// The program that it needs and that is not installed; without it compilers run as they are called.
    pub fn missing(self) -> Option<&'static str> {
        (self == Compilers::Tcc && tool("tcc").is_none()).then_some("tcc")
    }

    /// Has a build find them; returns the files that it needs for that.
    pub(crate) fn equip(self, bwrap: &mut BwrapArgs) -> Vec<FileInside> {
        let (names, script) = match self {
            Compilers::AsCalled => {
                bwrap.env("PATH", TOOL_FOLDERS);
                return Vec::new();
            }
            Compilers::Unoptimized => ([&C[..], &OTHERS[..]].concat(), UNOPTIMIZED),
            Compilers::Tcc => (C.to_vec(), TCC),
        };
        vec![stand_in(bwrap, TOOLS, &names, script.to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_for_compilers_finds_those_of_this_machine() {
        for script in [UNOPTIMIZED, TCC] {
            assert!(script.contains(&format!(" PATH={TOOL_FOLDERS}\n")), "{script}");
        }
    }
}
