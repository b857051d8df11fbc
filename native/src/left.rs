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

/// The shell's function that leaves the program at `$1`, and with it what is in the folder besides: all but what only
/// compilers and linkers read, and caches. Its further arguments are conditions of `find`: unless a file fulfils them
/// nothing is there but what was sent, and no folder is left. Descriptor 3 is where it goes.
pub const TAKE: &str = r#"
take() {
    program=$1
    shift
    printf '%s\n%s\n' "${program##*/}" "$(wc -c <"$program")" >&3
    cat -- "$program" >&3
    if [ -n "$(beside "$@" ! -type d -printf x)" ]; then
        beside -print0 | tar -c -f - --format=gnu --owner=0 --group=0 --mode=a-w,a+rX --hard-dereference \
            --ignore-failed-read --no-recursion --null -T - >&3
    fi
    exit 0
}
beside() {
    find . -mindepth 1 -path ./.cache -prune -o \( -type f -o -type d -o -type l \) ! -name '*.o' ! -name '*.a' \
        ! -name '*.gch' ! -samefile "$program" "$@"
}
"#;

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
