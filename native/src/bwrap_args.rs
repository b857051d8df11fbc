//! What there is inside a sandbox, as bubblewrap's options.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The work directory inside; `/tmp` is the same one, so that one size caps both.
pub const WORK_DIR: &str = "/work";

/// A file to be put there: path inside, permissions in octal, contents.
pub type FileInside = (String, &'static str, Vec<u8>);

/// All the devices there are. Not among them: `/dev/zero`, which gives memory that belongs to no process to whoever
/// maps it shared, terminals, and `/dev/shm`.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/full", "/dev/random", "/dev/urandom"];

/// User and group id of programs inside, whatever they are outside.
const INNER_ID: &str = "1000";

/// bubblewrap's options, as it reads them from a descriptor: on its command line every user of the machine could read
/// a client's environment.
#[derive(Default)]
pub struct BwrapArgs {
    options: Vec<u8>,
}

impl BwrapArgs {
    /// An empty machine with these paths of the host, read-only, and a work directory of `work_dir` bytes.
    pub fn new(visible: &[PathBuf], work_dir: u64) -> io::Result<Self> {
        let mut bwrap = Self::default();
        // `--unshare-all` alone goes without a user namespace where there is none to be had.
        bwrap.add([
            "--unshare-all",
            "--unshare-user",
            "--disable-userns",
            "--uid",
            INNER_ID,
            "--gid",
            INNER_ID,
        ]);
        bwrap.add(["--hostname", "sandbox", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
        for path in visible {
            bwrap.show(path)?;
        }
        for device in DEVICES {
            bwrap.add(["--dev-bind", device, device]);
        }
        // The root is a file system in memory as well: what is not capped in size is read-only in the end.
        bwrap.add(["--size", &work_dir.to_string(), "--perms", "0700", "--tmpfs", WORK_DIR]);
        bwrap.add(["--symlink", WORK_DIR, "/tmp", "--chdir", WORK_DIR]);
        Ok(bwrap)
    }

    fn show(&mut self, path: &Path) -> io::Result<()> {
        let kind = match path.symlink_metadata() {
            Ok(metadata) => metadata.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let path_bytes = path.as_os_str().as_bytes();
        if kind.is_symlink() {
            self.add([b"--symlink", path.read_link()?.as_os_str().as_bytes(), path_bytes]);
        } else {
            self.add([b"--ro-bind", path_bytes, path_bytes]);
        }
        Ok(())
    }

    /// Its own processes but the first, as `/proc`, and the names in `/dev` that lead there. clang needs it to find
    /// itself.
    pub fn proc(&mut self) {
        self.add(["--proc", "/proc", "--symlink", "/proc/self/fd", "/dev/fd"]);
        // The first process is bubblewrap's. Its memory and its descriptors, which are files there, keep the sandbox
        // bound to the life of this process.
        self.add(["--tmpfs", "/proc/1", "--remount-ro", "/proc/1"]);
        // A process may write what the gateway has set there: its share of the CPU, and who dies first of a lack of
        // memory.
        self.add(["--remount-ro", "/proc"]);
        for (number, name) in [("0", "/dev/stdin"), ("1", "/dev/stdout"), ("2", "/dev/stderr")] {
            self.add(["--symlink", &format!("/proc/self/fd/{number}"), name]);
        }
    }

    /// A variable of its environment. Neither holds a NUL.
    pub fn env(&mut self, name: &str, value: &str) {
        self.add(["--setenv", name, value]);
    }

    /// Options as they stand, none of which holds a NUL.
    pub fn add<S: AsRef<[u8]>, const N: usize>(&mut self, options: [S; N]) {
        for option in options {
            self.options.extend_from_slice(option.as_ref());
            self.options.push(0);
        }
    }

    /// All of them, with the root made read-only once everything is in its place.
    pub fn finish(mut self) -> Vec<u8> {
        self.add(["--remount-ro", "/"]);
        self.options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_paths_are_left_out_and_links_stay_links() {
        let bwrap =
            BwrapArgs::new(&["/nowhere".into(), "/proc/self/exe".into(), "/usr".into()], 4096).unwrap();
        let options = String::from_utf8(bwrap.finish()).unwrap();
        assert!(!options.contains("nowhere"));
        assert!(options.contains("\0--ro-bind\0/usr\0/usr\0"));
        assert!(options.contains("--symlink") && options.contains("\0/proc/self/exe\0"));
        assert!(options.ends_with("--remount-ro\0/\0"));
    }
}
