//! What `FILE|PROGRAM` stands for.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use offload_client::Code;

use crate::failure::Failure;

/// What a wasm module or component starts with.
const WASM_MAGIC: &[u8] = b"\0asm";

/// Reads the file that `operand` names, assembling text on the way, or takes it for the name of a program that the
/// gateway has: a name without `/` and without an ending that is no wasm file here.
pub fn resolve(operand: &str) -> Result<Code, Failure> {
    if operand.starts_with("sha256:") {
        return Err(Failure::usage(format!("{operand}: sending by digest is not supported yet")));
    }
    let path = Path::new(operand);
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending {
        Some("wat") => return assemble(path),
        Some("c" | "cc" | "cpp" | "cxx") if path.is_file() => {
            return Err(Failure::usage(format!("{operand}: sending C and C++ source is not supported yet")));
        }
        _ => {}
    }
    let named_as_file = ending.is_some() || operand.contains('/');
    match fs::read(path) {
        Ok(bytes) if bytes.starts_with(WASM_MAGIC) => Ok(Code::Module(bytes.into())),
        Ok(_) if named_as_file => Err(Failure::new("malformed", format!("{operand}: not a wasm module"))),
        Err(error) if error.kind() == ErrorKind::IsADirectory && named_as_file => {
            Err(Failure::usage(format!("{operand}: sending a folder is not supported yet")))
        }
        Err(error) if named_as_file => Err(unreadable(path, &error)),
        _ => Ok(Code::Program(operand.to_owned())),
    }
}

fn assemble(path: &Path) -> Result<Code, Failure> {
    let text = fs::read(path).map_err(|error| unreadable(path, &error))?;
    // Its own message names the file and shows the line.
    wat::Parser::new()
        .parse_bytes(Some(path), &text)
        .map(|module| Code::Module(module.into_owned().into()))
        .map_err(|error| Failure::new("malformed", error.to_string()))
}

/// An error of reading a file, as `not-found` where there is none.
pub fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::new("not-found", format!("{}: no such file", path.display())),
        _ => Failure::new("malformed", format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_a_name_is_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, contents: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, contents).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let module = Code::Module(b"\0asm\x01\0\0\0"[..].into());
        assert_eq!(resolve(&file("a.wasm", b"\0asm\x01\0\0\0")).unwrap(), module);
        assert_eq!(resolve(&file("a", b"\0asm\x01\0\0\0")).unwrap(), module);
        assert_eq!(resolve(&file("a.wat", b"(module)")).unwrap(), module);
        assert_eq!(resolve("add").unwrap(), Code::Program("add".into()));
        for (operand, kind, problem) in [
            (file("b.wasm", b"text"), "malformed", "not a wasm module"),
            (file("b.c", b"int main;"), "malformed", "C and C++ source is not supported yet"),
            (folder.path().to_str().unwrap().to_owned(), "malformed", "a folder is not supported yet"),
            ("none.wasm".into(), "not-found", "none.wasm: no such file"),
            ("none.wat".into(), "not-found", "none.wat: no such file"),
            ("none.c".into(), "not-found", "none.c: no such file"),
            ("./none".into(), "not-found", "./none: no such file"),
            ("sha256:00".into(), "malformed", "sending by digest is not supported yet"),
        ] {
            let failure = resolve(&operand).unwrap_err();
            assert_eq!(failure.kind, kind, "{operand}");
            assert!(failure.message.ends_with(problem), "{}", failure.message);
        }
    }

    #[test]
    fn an_error_in_text_is_shown_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.wat");
        fs::write(&path, "(module\n  (fun))").unwrap();
        let message = resolve(path.to_str().unwrap()).unwrap_err().message;
        assert!(message.contains("bad.wat:2:4") && message.contains("(fun))"), "{message}");
    }
}
