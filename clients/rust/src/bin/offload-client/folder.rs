//! A folder as a request carries it: which of its files go, and which stay.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{DirEntry, WalkBuilder};
use offload_client::Files;

use crate::code::unreadable;
use crate::failure::Failure;

/// Says what of a folder is not sent, or with `!` what is sent all the same, as `.gitignore` does; read after that and
/// in each folder as well.
const IGNORE_FILE: &str = ".offloadignore";

/// What is built is built at the gateway: make there must not take it for up to date. Executable programs have no
/// ending, and are known by how they begin.
const BUILT: [&str; 9] = ["*.o", "*.obj", "*.a", "*.lib", "*.so", "*.so.*", "*.gch", "*.d", "*.exe"];
const EXECUTABLES: [&[u8]; 2] = [b"\x7fELF", b"\xcf\xfa\xed\xfe"];

/// The files that make looks for.
const MAKEFILES: [&str; 3] = ["GNUmakefile", "makefile", "Makefile"];

/// No gateway can be told to take more files of one request than this, or more bytes of source.
const MAX_FILES: usize = 10_000;
const MAX_BYTES: u64 = 64 << 20;

/// The largest files that are named where all together are too large.
const NAMED: usize = 3;

/// Reads the files of a folder, in the order of their paths. Without `makefile` there has to be one among them.
///
/// Left out is what `.gitignore` and [`IGNORE_FILE`] name, hidden files, and what was built here. A link is an error,
/// since whoever put it there wants what is behind it to come along.
pub fn pack(folder: &Path, makefile: Option<String>, target: Option<String>) -> Result<Files, Failure> {
    let mut found = paths(folder)?;
    found.sort();
    let has_makefile = makefile.is_some() || found.iter().any(|(path, _)| MAKEFILES.contains(&path.as_str()));
    if !has_makefile {
        let problem = "no Makefile in this folder that is sent; --makefile names another file";
        return Err(Failure::new("not-found", format!("{}: {problem}", folder.display())));
    }
    check_size(folder, &found)?;
    let mut files = Vec::with_capacity(found.len());
    let mut left = MAX_BYTES;
    for (path, _) in found {
        let contents = read(&folder.join(&path), left)?;
        left -= contents.len() as u64;
        files.push((path, contents.into()));
    }
    Ok(Files { files, makefile, target })
}

/// The paths of what is sent, with `/` between their parts, and the sizes.
fn paths(folder: &Path) -> Result<Vec<(String, u64)>, Failure> {
    let built = built_files(folder)?;
    // What lies above this folder, or in the user's own configuration, does not count: the same folder is sent
    // everywhere as the same files. With a `/` at its end it may itself be behind a link.
    let walk = WalkBuilder::new(folder.join(""))
        .standard_filters(false)
        .hidden(true)
        .git_ignore(true)
        .require_git(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .build();
    let mut found = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|error| Failure::usage(error.to_string()))?;
        if let Some(error) = entry.error() {
            return Err(Failure::usage(error.to_string()));
        }
        let path = entry.path();
        let Ok(inner) = path.strip_prefix(folder) else { continue };
        let kind = entry.file_type();
        if kind.is_some_and(|kind| kind.is_dir()) || built.matched(inner, false).is_ignore() {
            continue;
        }
        if !kind.is_some_and(|kind| kind.is_file()) {
            let problem = "neither a file nor a folder, and links are not followed";
            let advice = format!("replace it, or name it in {IGNORE_FILE}");
            return Err(Failure::usage(format!("{}: {problem}: {advice}", path.display())));
        }
        // A `!` that names it takes it along.
        if !built.matched(inner, false).is_whitelist() && is_executable(path)? {
            continue;
        }
        if found.len() == MAX_FILES {
            let problem = format!("more than {MAX_FILES} files: name in {IGNORE_FILE} what is not needed");
            return Err(Failure::new("too-large", format!("{}: {problem}", folder.display())));
        }
        found.push((in_request(path, inner)?, size(&entry)?));
    }
    Ok(found)
}

/// [`BUILT`], and what the folder's own [`IGNORE_FILE`] says of it.
fn built_files(folder: &Path) -> Result<Gitignore, Failure> {
    let mut rules = GitignoreBuilder::new("");
    for pattern in BUILT {
        rules.add_line(None, pattern).expect("the patterns are well-formed");
    }
    match fs::read_to_string(folder.join(IGNORE_FILE)) {
        Ok(text) => {
            for line in text.lines() {
                rules.add_line(None, line).map_err(|error| Failure::usage(error.to_string()))?;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(&folder.join(IGNORE_FILE), &error)),
    }
    rules.build().map_err(|error| Failure::usage(error.to_string()))
}

fn is_executable(path: &Path) -> Result<bool, Failure> {
    let longest = EXECUTABLES.iter().map(|start| start.len()).max().unwrap_or_default();
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(longest as u64).read_to_end(&mut start));
    read.map_err(|error| unreadable(path, &error))?;
    Ok(EXECUTABLES.contains(&start.as_slice()))
}

fn in_request(path: &Path, inner: &Path) -> Result<String, Failure> {
    let part = |part: Component<'_>| part.as_os_str().to_str().map(str::to_owned);
    let parts: Option<Vec<String>> = inner.components().map(part).collect();
    let parts = parts.ok_or_else(|| {
        let problem = format!("its name is not UTF-8: rename it, or name it in {IGNORE_FILE}");
        Failure::usage(format!("{}: {problem}", path.display()))
    })?;
    Ok(parts.join("/"))
}

fn size(entry: &DirEntry) -> Result<u64, Failure> {
    let metadata = entry.metadata().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(metadata.len())
}

fn check_size(folder: &Path, found: &[(String, u64)]) -> Result<(), Failure> {
    let size: u64 = found.iter().map(|(_, size)| size).sum();
    if size <= MAX_BYTES {
        return Ok(());
    }
    let mut largest: Vec<&(String, u64)> = found.iter().collect();
    largest.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let largest: Vec<String> =
        largest.iter().take(NAMED).map(|(path, size)| format!("{path} ({size} bytes)")).collect();
    let problem = format!("{size} bytes, no gateway takes more than {MAX_BYTES}");
    let advice = format!("name in {IGNORE_FILE} what is not needed; the largest: {}", largest.join(", "));
    Err(Failure::new("too-large", format!("{}: {problem}: {advice}", folder.display())))
}

/// The contents of a file that may have grown since its size was seen.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut contents = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut contents));
    match read {
        Err(error) => Err(unreadable(path, &error)),
        Ok(length) if length as u64 > limit => {
            Err(Failure::new("too-large", format!("{}: it grows", path.display())))
        }
        Ok(_) => Ok(contents),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, contents) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        folder
    }

    fn packed(folder: &TempDir) -> Vec<String> {
        let files = pack(folder.path(), None, None).unwrap().files;
        files.into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn files_go_with_their_paths_in_order() {
        let folder = folder(&[
            ("src/main.c", b"int main;"),
            ("Makefile", b"all:"),
            ("src-old/x.c", b""),
            ("include/a b.h", b"\0\xff"),
        ]);
        let target = Some("bin/app".to_owned());
        let expected: [(String, bytes::Bytes); 4] = [
            ("Makefile".into(), "all:".into()),
            ("include/a b.h".into(), b"\0\xff"[..].into()),
            ("src-old/x.c".into(), "".into()),
            ("src/main.c".into(), "int main;".into()),
        ];
        let packed = pack(folder.path(), None, target.clone()).unwrap();
        assert_eq!(packed, Files { files: expected.to_vec(), makefile: None, target });
        // However the folder is named.
        let dotted = folder.path().join("src/..").join("");
        assert_eq!(pack(&dotted, None, None).unwrap().files, expected);
    }

    #[test]
    fn what_is_ignored_hidden_or_built_stays() {
        let folder = folder(&[
            ("Makefile", b"all:"),
            (".gitignore", b"*.log\n/build/\n"),
            (".offloadignore", b"data/\n!keep.log\n!vendor/*.a\n!.config\n!blob\n"),
            (".git/config", b""),
            (".env", b"PASSWORD=x"),
            (".config", b""),
            ("a.log", b""),
            ("keep.log", b""),
            ("build/made.c", b""),
            ("src/build/kept.c", b""),
            ("src/.gitignore", b"generated.c\n"),
            ("src/generated.c", b""),
            ("data/large.csv", b""),
            ("src/a.o", b""),
            ("src/a.d", b""),
            ("lib/libx.a", b"!<arch>\n"),
            ("vendor/liby.a", b"!<arch>\n"),
            ("lib/libz.so.1", b""),
            ("app", b"\x7fELF\x02"),
            ("blob", b"\x7fELF\x02"),
            ("mac/app", b"\xcf\xfa\xed\xfe\x07"),
            ("short", b"\x7f"),
        ]);
        let expected =
            [".config", "Makefile", "blob", "keep.log", "short", "src/build/kept.c", "vendor/liby.a"];
        assert_eq!(packed(&folder), expected);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_refused_unless_they_are_ignored() {
        let folder = folder(&[("Makefile", b"all:"), ("src/a.c", b"")]);
        for (target, name) in [("/etc/passwd", "passwd"), ("src", "again"), ("nowhere", "broken")] {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(target, &link).unwrap();
            let failure = pack(folder.path(), None, None).unwrap_err();
            assert!(failure.kind == "malformed" && failure.message.contains("links are not followed"));
            assert!(failure.message.starts_with(link.to_str().unwrap()), "{}", failure.message);
            fs::write(folder.path().join(".offloadignore"), name).unwrap();
            assert_eq!(packed(&folder), ["Makefile", "src/a.c"]);
            fs::remove_file(link).unwrap();
        }
        // The folder itself may be behind one.
        let outer = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), outer.path().join("link")).unwrap();
        assert_eq!(pack(&outer.path().join("link"), None, None).unwrap().files.len(), 2);
    }

    #[test]
    fn what_cannot_be_sent_says_why() {
        let empty = folder(&[("a.c", b"")]);
        let failure = pack(empty.path(), None, None).unwrap_err();
        assert_eq!(failure.kind, "not-found");
        assert!(failure.message.contains("no Makefile in this folder"), "{}", failure.message);
        assert_eq!(pack(empty.path(), Some("all:".into()), None).unwrap().files.len(), 1);

        let large = folder(&[("Makefile", b"all:")]);
        // It takes no room on the disk.
        File::create(large.path().join("data.bin")).unwrap().set_len(MAX_BYTES).unwrap();
        let failure = pack(large.path(), None, None).unwrap_err();
        assert_eq!(failure.kind, "too-large");
        for part in
            ["67108868 bytes, no gateway takes more than 67108864", "data.bin (67108864 bytes), Makefile"]
        {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }
}
