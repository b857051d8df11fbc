//! Commands from a pipe or a file.

use std::io::{BufRead, Read};

use tokio::sync::mpsc;

use super::Line;

/// The longest line, in bytes; what follows a longer one is not read.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// Hands out lines until the end, until one that ends it all, or until nobody takes them any more.
pub fn read(mut input: impl BufRead, lines: &mpsc::Sender<Line>) {
    for number in 1.. {
        let mut bytes = Vec::new();
        let read = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes);
        let cut = bytes.len() as u64 == MAX_LINE && !bytes.ends_with(b"\n");
        let (text, more) = match read {
            Ok(0) => return,
            Ok(_) if cut => {
                (Err(format!("expected a line of at most {MAX_LINE} bytes; nothing after it is read")), false)
            }
            Ok(_) => (String::from_utf8(without_end(bytes)).map_err(|_| NO_TEXT.to_owned()), true),
            Err(error) => (Err(error.to_string()), false),
        };
        if lines.blocking_send(Line { number: Some(number), text }).is_err() || !more {
            return;
        }
    }
}

const NO_TEXT: &str = "expected UTF-8";

/// Without the line's end, which is that of any system.
fn without_end(mut line: Vec<u8>) -> Vec<u8> {
    if line.ends_with(b"\n") {
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Result<String, String>> {
        let (sender, mut lines) = mpsc::channel(10);
        read(input, &sender);
        drop(sender);
        std::iter::from_fn(|| lines.blocking_recv()).map(|line| line.text).collect()
    }

    #[test]
    fn lines_end_as_on_any_system_and_the_last_one_may_not() {
        let expected = ["a ", "", "b", "c"].map(|line| Ok(line.to_owned()));
        assert_eq!(lines(b"a \n\r\nb\r\nc"), expected);
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn what_is_no_text_is_one_lines_error() {
        assert_eq!(lines(b"\xff\nb\n"), [Err(NO_TEXT.to_owned()), Ok("b".to_owned())]);
    }

    #[test]
    fn a_line_is_bounded() {
        let mut input = vec![b'x'; MAX_LINE as usize + 1];
        input.extend(b"\nb\n");
        let read = lines(&input);
        assert!(matches!(&read[..], [Err(problem)] if problem.starts_with("expected a line of at most")));
    }
}
