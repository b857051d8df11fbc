//! Compilers' output, made fit to be shown to whoever sent the source.

/// Bytes of compilers' output that are kept: the last ones, since what stopped the build stands there.
pub const MAX_DIAGNOSTICS: usize = 64 * 1024;

/// Bytes of the one line that stands for the whole.
const MAX_FIRST_ERROR: usize = 200;

/// Text without control characters but line ends and tabs, its last [`MAX_DIAGNOSTICS`] bytes.
pub fn cleaned(output: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(output)
        .chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect();
    let start = text.ceil_char_boundary(text.len().saturating_sub(MAX_DIAGNOSTICS));
    text[start..].to_owned()
}

/// The first line that names an error, else the last line.
pub fn first_error(output: &[u8]) -> String {
    let error = output.split(|byte| *byte == b'\n').find(|line| line.windows(5).any(|word| word == b"error"));
    let last = || output.split(|byte| *byte == b'\n').rfind(|line| !line.trim_ascii().is_empty());
    let line = cleaned(error.or_else(last).unwrap_or(b"it failed without a word"));
    line[..line.floor_char_boundary(MAX_FIRST_ERROR)].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_found() {
        let output = b"p.c: In function 'main':\np.c:1:5: error: expected ';'\np.c:2:5: error: more\n";
        assert_eq!(first_error(output), "p.c:1:5: error: expected ';'");
        assert_eq!(
            first_error(b"make: *** No rule to make target 'x'.  Stop.\n\n"),
            "make: *** No rule to make target 'x'.  Stop."
        );
        assert_eq!(first_error(b""), "it failed without a word");
        assert_eq!(first_error(format!("error: {}", "ä".repeat(200)).as_bytes()).len(), 199);
    }

    #[test]
    fn control_characters_go_and_the_end_stays() {
        assert_eq!(cleaned(b"a\x1b[31mb\x07\r\n\tc\xff"), "a[31mb\n\tc\u{fffd}");
        let long = cleaned("ä".repeat(MAX_DIAGNOSTICS).as_bytes());
        assert!(long.len() <= MAX_DIAGNOSTICS && long.starts_with('ä'));
    }
}
