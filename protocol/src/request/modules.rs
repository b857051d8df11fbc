//! What is asked about the modules that a principal has at the gateway, and the list that answers it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Code, Digest};
use crate::error::WireError;

/// What is asked about the modules that the principal has at the gateway. Nothing is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModulesRequest {
    /// Which ones there are.
    List,
    /// This one is to be kept, compiled.
    Store(Bytes),
    /// This one is to be forgotten.
    Remove(Digest),
}

/// One module of a principal, as the gateway lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredModule {
    /// By which it is named.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// When it was sent or named last, in milliseconds since 1970.
    pub last_used: u64,
}

/// The value of the field `modules`.
#[derive(Clone, Copy)]
pub(super) enum Action {
    List,
    Store,
    Remove,
}

/// The list as stdout carries it: JSON, on one line.
pub fn encode_list(modules: &[StoredModule]) -> Bytes {
    serde_json::to_vec(modules).expect("texts and numbers can be written as JSON").into()
}

/// Reads a list. Fields that a later gateway adds are passed over.
///
/// # Errors
///
/// `malformed` where it is none.
pub fn decode_list(stdout: &[u8]) -> Result<Vec<StoredModule>, WireError> {
    serde_json::from_slice(stdout)
        .map_err(|error| WireError::malformed("modules", format_args!("expected a list of modules: {error}")))
}

impl Action {
    /// By its name.
    pub(super) fn read(text: &str) -> Result<Action, WireError> {
        match text {
            "list" => Ok(Action::List),
            "store" => Ok(Action::Store),
            "remove" => Ok(Action::Remove),
            _ => {
                let problem = "expected `list`, `store` or `remove`, got another text";
                Err(WireError::malformed("modules", problem))
            }
        }
    }

    /// With the field that names the module, which `list` has none of.
    pub(super) fn request(self, code: Option<Code>) -> Result<ModulesRequest, WireError> {
        match (self, code) {
            (Action::List, None) => Ok(ModulesRequest::List),
            (Action::Store, Some(Code::Module(module))) => Ok(ModulesRequest::Store(module)),
            (Action::Remove, Some(Code::Digest(digest))) => Ok(ModulesRequest::Remove(digest)),
            (action, _) => {
                let expected = match action {
                    Action::List => "`list` with no field that says what to run",
                    Action::Store => "`store` with `module` and no other field that says what to run",
                    Action::Remove => "`remove` with `digest` and no other field that says what to run",
                };
                Err(WireError::malformed("modules", format_args!("expected {expected}")))
            }
        }
    }
}

impl ModulesRequest {
    /// The value of the field `modules`.
    pub fn action(&self) -> &'static str {
        match self {
            ModulesRequest::List => "list",
            ModulesRequest::Store(_) => "store",
            ModulesRequest::Remove(_) => "remove",
        }
    }
}

impl fmt::Display for ModulesRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "modules {}", self.action())?;
        match self {
            ModulesRequest::Remove(digest) => write!(f, " {digest}"),
            ModulesRequest::List | ModulesRequest::Store(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_again_and_later_fields_are_passed_over() {
        let modules = [StoredModule { digest: Digest([7; 32]), bytes: 9, last_used: 1_700_000_000_123 }];
        let stdout = encode_list(&modules);
        let digest = format!("sha256:{}", "07".repeat(32));
        let expected = format!(r#"[{{"digest":"{digest}","bytes":9,"last_used":1700000000123}}]"#);
        assert_eq!(stdout, expected);
        assert_eq!(decode_list(&stdout).unwrap(), modules);
        assert_eq!(encode_list(&[]), "[]");
        let later = format!(r#"[{{"digest":"{digest}","bytes":9,"name":"x","last_used":1700000000123}}]"#);
        assert_eq!(decode_list(later.as_bytes()).unwrap(), modules);
        for wrong in ["", "{}", r#"[{"digest":"sha256:07","bytes":9,"last_used":1}]"#] {
            assert!(decode_list(wrong.as_bytes()).unwrap_err().message.starts_with("modules: "), "{wrong}");
        }
    }
}
