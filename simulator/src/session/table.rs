//! Tables and paragraphs that fit into a terminal's columns.

/// Between columns.
const GAP: usize = 2;

/// No column becomes narrower than this for the sake of the others.
const NARROWEST: usize = 6;

/// Rows in columns, the first row with its names. What does not fit is cut and ends with `…`.
pub fn table(rows: &[Vec<String>], columns: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..count)
        .map(|at| {
            rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    while widths.iter().sum::<usize>() + GAP * count.saturating_sub(1) > columns {
        match widths.iter_mut().max().filter(|widest| **widest > NARROWEST) {
            Some(widest) => *widest -= 1,
            None => break,
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", cut(cell, *width)));
        let line = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// At most this many characters.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Words in lines, the first with `head` in front, the others as far in.
pub fn paragraph(head: &str, words: &str, columns: usize) -> String {
    broken(head, words.split(' '), " ", columns)
}

/// Pieces in lines as [`paragraph`] has words, with `glue` between those that share a line.
pub fn broken<'p>(head: &str, pieces: impl Iterator<Item = &'p str>, glue: &str, columns: usize) -> String {
    let indentation = head.chars().count();
    let width = columns.saturating_sub(indentation).max(NARROWEST);
    let mut lines: Vec<String> = Vec::new();
    for piece in pieces {
        let room = lines.last().map_or(0, |line| width.saturating_sub((line.clone() + glue).chars().count()));
        match lines.last_mut() {
            Some(line) if piece.chars().count() <= room => {
                line.push_str(glue);
                line.push_str(piece);
            }
            // What is longer than a line goes on in the next.
            _ => {
                let letters: Vec<char> = piece.chars().collect();
                lines.extend(letters.chunks(width).map(|letters| letters.iter().collect::<String>()));
            }
        }
    }
    let front = |at| if at == 0 { head.to_owned() } else { " ".repeat(indentation) };
    lines.iter().enumerate().map(|(at, line)| format!("{}{line}\n", front(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_columns() {
        let rows = [vec!["name".to_owned(), "what".into()], vec!["a".into(), "long ".repeat(20)]];
        assert_eq!(table(&rows, 14), "name  what\na     long lo…\n");
        assert_eq!(table(&rows, 200).lines().next(), Some("name  what"));
    }

    #[test]
    fn a_paragraph_is_as_far_in_as_its_head() {
        assert_eq!(paragraph("- ", "one two three", 9), "- one two\n  three\n");
        assert_eq!(paragraph("  ", "abcdefghijkl", 10), "  abcdefgh\n  ijkl\n");
        assert_eq!(broken("", "{a:1,b:2}".split_inclusive(','), "", 8), "{a:1,\nb:2}\n");
    }
}
