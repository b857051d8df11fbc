//! Text of a stranger, as it can stand in a line of a log or of a terminal.

/// The longest text of a stranger that is repeated, in characters.
const MAX_TEXT: usize = 200;

/// The text, bounded and without control characters.
pub fn one_line(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bounded_and_acts_on_no_terminal() {
        assert_eq!(one_line("not\nyou\u{1b}"), "not you ");
        assert_eq!(one_line(&"é".repeat(100_000)).chars().count(), MAX_TEXT);
    }
}
