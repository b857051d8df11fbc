//! What a build leaves on standard output: its program, and an archive of what is beside it.

/// What a build leaves, as [`TAKE`] writes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left<'a> {
    /// The program's name in its folder.
    pub name: &'a str,
    pub program: &'a [u8],
    /// An archive of what the program's runs are to find; empty where there is nothing.
    pub folder: &'a [u8],
}

impl<'a> Left<'a> {
    /// Reads it; `None` for what is something else.
    pub fn read(output: &'a [u8]) -> Option<Self> {
        let mut lines = output.splitn(3, |byte| *byte == b'\n');
        let name = str::from_utf8(lines.next()?).ok()?;
        let size: usize = str::from_utf8(lines.next()?).ok()?.trim().parse().ok()?;
        let (program, folder) = lines.next()?.split_at_checked(size)?;
        Some(Self { name, program, folder })
    }
}

/// The shell's function that writes it, to descriptor 3.
pub const TAKE: &str = include_str!("left/take.sh");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_from_its_name_and_its_folder() {
        let left = |name, program, folder| Some(Left { name, program, folder });
        assert_eq!(Left::read(b"app\n5\n\x7fELF\nrest"), left("app", b"\x7fELF\n", b"rest"));
        assert_eq!(Left::read(b"a\n0\n"), left("a", b"", b""));
        for output in
            [&b"\xff\n0\n"[..], b"app", b"app\n", b"app\n1", b"app\n5\nfour", b"app\nx\nx", b"app\n-1\nx"]
        {
            assert_eq!(Left::read(output), None);
        }
    }
}
