//! What `FILE|PROGRAM|sha256:HEX` stands for.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use offload_client::{Build, Code, Source};

use crate::failure::Failure;
use crate::folder;
use crate::request::read;

/// The operand that stands for this command's stdin.
const STDIN: &str = "-";

/// What a wasm module or component starts with.
const WASM_MAGIC: &[u8] = b"\0asm";

/// The build parts of source that comes without one.
const BUILD_C: &str = "gcc <name>.c -o <name>";
const BUILD_CPP: &str = "g++ <name>.cpp -o <name>";

/// What helps with a file that is no module, where the flags are there that build it.
const BUILD_FLAGS: &str = "; --build CMD or --makefile FILE says how the gateway builds C or C++";
/// And where they are not.
const SEND_BUILDS: &str = "; `send` has the gateway build C or C++";

/// Reads the file or the folder that `operand` names, assembling text on the way, or takes it for a digest, or for the
/// name of a program that the gateway has: a name without `/` and without an ending that is no module and no folder
/// here. With a build part a file is source, whatever its ending. A target is for a folder alone.
pub fn resolve(operand: &str, build: Option<Build>, target: Option<String>) -> Result<Code, Failure> {
    resolve_or(operand, build, target, BUILD_FLAGS)
}

/// The same where only a module will do.
pub fn resolve_module(operand: &str) -> Result<Code, Failure> {
    resolve_or(operand, None, None, SEND_BUILDS)
}

/// What is no module is refused with this remedy.
fn resolve_or(
    operand: &str,
    build: Option<Build>,
    target: Option<String>,
    remedy: &str,
) -> Result<Code, Failure> {
    let path = Path::new(operand);
    if path.is_dir() {
        let makefile = match build {
            Some(Build::Command(_)) => {
                return Err(Failure::usage(format!(
                    "{operand}: a folder is built by a makefile, not by a command"
                )));
            }
            Some(Build::Makefile(text)) => Some(text),
            None => None,
        };
        return folder::pack(path, makefile, target).map(Code::Files);
    }
    if target.is_some() {
        return Err(Failure::usage(format!("--target: expected with a folder, {operand} is none")));
    }
    let ending = path.extension().and_then(|ending| ending.to_str());
    let build = match (build, ending) {
        (Some(build), _) => Some(build),
        (None, Some("c")) => Some(Build::Command(BUILD_C.to_owned())),
        (None, Some("cc" | "cpp" | "cxx")) => Some(Build::Command(BUILD_CPP.to_owned())),
        _ => None,
    };
    if let Some(build) = build {
        let text = read(path)?;
        let name = path.file_stem().unwrap_or_default().as_encoded_bytes();
        return Ok(Code::Source(Source::new(name, text.into(), build)));
    }
    if operand == STDIN {
        return from_stdin(read(path)?, remedy);
    }
    if operand.starts_with("sha256:") {
        return operand.parse().map(Code::Digest).map_err(|error| Failure::usage(error.message));
    }
    if ending == Some("wat") {
        return assemble(path, &read(path)?);
    }
    let named_as_file = ending.is_some() || operand.contains('/');
    match fs::read(path) {
        Ok(bytes) if bytes.starts_with(WASM_MAGIC) => Ok(Code::Module(bytes.into())),
        Ok(_) if named_as_file => Err(not_a_module(operand, ending, remedy)),
        Err(error) if named_as_file => Err(unreadable(path, &error)),
        _ => Ok(Code::Program(operand.to_owned())),
    }
}

/// The code that came on stdin: a module, or its text.
fn from_stdin(bytes: Vec<u8>, remedy: &str) -> Result<Code, Failure> {
    if bytes.starts_with(WASM_MAGIC) {
        return Ok(Code::Module(bytes.into()));
    }
    if bytes.trim_ascii_start().starts_with(b"(") {
        return assemble(Path::new("stdin"), &bytes);
    }
    let problem = format!("stdin: neither a wasm module nor its text (.wat){remedy}");
    Err(Failure::new("malformed", problem))
}

/// A file that is no module, and what makes it one where its ending tells.
fn not_a_module(operand: &str, ending: Option<&str>, remedy: &str) -> Failure {
    let stem = operand.rsplit_once('.').map_or(operand, |(stem, _)| stem);
    let remedy = match ending {
        Some("rs") => format!(
            "; compile it here and send that: rustc --target wasm32-wasip1 -O {operand} -o {stem}.wasm"
        ),
        Some("go") => format!(
            "; compile it here and send that: GOOS=wasip1 GOARCH=wasm go build -o {stem}.wasm {operand}"
        ),
        Some("py") => format!("; make a component of it with componentize-py and send that: {stem}.wasm"),
        Some("js" | "ts") => format!("; make a component of it with jco and send that: {stem}.wasm"),
        Some("wasm") => String::new(),
        _ => remedy.to_owned(),
    };
    Failure::new("malformed", format!("{operand}: not a wasm module{remedy}"))
}

/// What `--build` or `--makefile` say.
pub fn build(command: Option<&str>, makefile: Option<&Path>) -> Result<Option<Build>, Failure> {
    let parse = |flag: &str, text: &str| {
        Build::parse(text).map_err(|error| Failure::usage(format!("{flag}: {}", error.message)))
    };
    match (command, makefile) {
        (Some(command), _) => match parse("--build", command)? {
            build @ Build::Command(_) => Ok(Some(build)),
            Build::Makefile(_) => Err(Failure::usage(
                "--build: expected commands of a compiler (gcc, cc, clang, tcc, g++, c++ or clang++), each on a line of its own; \
                 a makefile goes to --makefile",
            )),
        },
        (None, Some(path)) => {
            let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
            parse("--makefile", &text).map(Some)
        }
        (None, None) => Ok(None),
    }
}

fn assemble(path: &Path, text: &[u8]) -> Result<Code, Failure> {
    // Its own message names the file and shows the line.
    wat::Parser::new()
        .parse_bytes(Some(path), text)
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
    use offload_client::Digest;

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
        let code = |operand: &str| resolve(operand, None, None).unwrap();
        assert_eq!(code(&file("a.wasm", b"\0asm\x01\0\0\0")), module);
        assert_eq!(code(&file("a", b"\0asm\x01\0\0\0")), module);
        assert_eq!(code(&file("a.wat", b"(module)")), module);
        assert_eq!(code("add"), Code::Program("add".into()));
        assert_eq!(code(&format!("sha256:{}", "07".repeat(32))), Code::Digest(Digest([7; 32])));
        for (operand, kind, problem) in [
            (file("b.wasm", b"text"), "malformed", "not a wasm module"),
            // Named as a program could be: tests run in the folder of their crate.
            (
                "src".into(),
                "not-found",
                "src: no Makefile in this folder that is sent; --makefile names another file",
            ),
            ("none.wasm".into(), "not-found", "none.wasm: no such file"),
            ("none.wat".into(), "not-found", "none.wat: no such file"),
            ("none.c".into(), "not-found", "none.c: no such file"),
            ("./none".into(), "not-found", "./none: no such file"),
            ("sha256:00".into(), "malformed", "digest: expected `sha256:` and 64 hexadecimal digits"),
        ] {
            let failure = resolve(&operand, None, None).unwrap_err();
            assert_eq!(failure.kind, kind, "{operand}");
            assert!(failure.message.ends_with(problem), "{}", failure.message);
        }
    }

    #[test]
    fn source_is_named_for_its_file_and_built_as_told() {
        let folder = tempfile::tempdir().unwrap();
        let makefile = folder.path().join("Makefile");
        fs::write(&makefile, "all:\n\tgcc <name>.c\n").unwrap();
        let from_makefile = || build(None, Some(&makefile)).unwrap();
        let from_command = || build(Some(" cc <name>.c "), None).unwrap();
        for (file, build, name, expected) in [
            ("sum.c", None, "sum", Build::Command(BUILD_C.into())),
            ("sum.cc", None, "sum", Build::Command(BUILD_CPP.into())),
            ("my sum.c", from_command(), "program", Build::Command("cc <name>.c".into())),
            ("sum.txt", from_makefile(), "sum", Build::Makefile("all:\n\tgcc <name>.c\n".into())),
        ] {
            let path = folder.path().join(file);
            fs::write(&path, "int main;").unwrap();
            let source = Source { name: name.into(), text: "int main;".into(), build: expected };
            assert_eq!(resolve(path.to_str().unwrap(), build, None).unwrap(), Code::Source(source));
        }
        let target = resolve("sum.c", None, Some("all".into())).unwrap_err();
        assert_eq!(target.message, "--target: expected with a folder, sum.c is none");
        let command = resolve("src", from_command(), None).unwrap_err();
        assert_eq!(command.message, "src: a folder is built by a makefile, not by a command");
        let two = "gcc -c a.c\ngcc a.o";
        assert_eq!(build(Some(two), None).unwrap(), Some(Build::Command(two.into())));
        for (command, problem) in [
            ("make", "--build: expected commands of a compiler (gcc"),
            ("gcc a.c\nall:\n\tcc b.c", "--build: expected commands of a compiler (gcc"),
            (" ", "--build: makefile: expected a makefile or a compiler command, got nothing"),
        ] {
            let failure = build(Some(command), None).unwrap_err();
            assert!(failure.message.starts_with(problem), "{}", failure.message);
        }
        assert_eq!(build(None, Some(Path::new("none"))).unwrap_err().kind, "not-found");
    }

    #[test]
    fn an_error_in_text_is_shown_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.wat");
        fs::write(&path, "(module\n  (fun))").unwrap();
        let message = resolve(path.to_str().unwrap(), None, None).unwrap_err().message;
        assert!(message.contains("bad.wat:2:4") && message.contains("(fun))"), "{message}");
    }
}
