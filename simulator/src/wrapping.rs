//! Lines that are no longer than there is room for.

/// The lines of a text, of `width` characters at most but for a word that has more, each with a line break. Further
/// lines begin with `indent`.
pub fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used == 0 {
            used = length;
        } else if used + 1 + length <= width {
            lines.push(' ');
            used += 1 + length;
        } else {
            lines.push('\n');
            lines.push_str(indent);
            used = indent.len() + length;
        }
        lines.push_str(word);
    }
    lines + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below() {
        let text = "throughput within 7 %, ".repeat(8);
        let lines = wrapped(text.trim(), 80, "  ");
        assert!(lines.lines().count() > 1 && lines.lines().all(|line| line.chars().count() <= 80), "{lines}");
        assert!(lines.lines().skip(1).all(|line| line.starts_with("  ")), "{lines}");
        assert_eq!(lines.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
    }
}
