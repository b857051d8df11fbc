//! Tables and paragraphs that fit into a terminal's columns.

/// Between columns.
const GAP: usize = 2;

/// No column becomes narrower than this for the sake of the others.
const NARROWEST: usize = 6;

/// Rows in columns, the first row with its names. What does not fit is cut and ends with `…`.
pub fn table(rows: &[Vec<String>], columns: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..count)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
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
    let indentation = head.chars().count();
    let width = columns.saturating_sub(indentation).max(NARROWEST);
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        let mut word = word.to_owned();
        let last = lines.last_mut().expect("there is always a line");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(&word);
            continue;
        }
        // A word that is longer than a line goes on in the next.
        while word.chars().count() > width {
            let rest = word.chars().skip(width).collect();
            lines.push(word.chars().take(width).collect());
            word = rest;
        }
        lines.push(word);
    }
    let mut text = String::new();
    for (at, line) in lines.iter().filter(|line| !line.is_empty()).enumerate() {
        let front = if at == 0 { head.to_owned() } else { " ".repeat(indentation) };
        text.push_str(&format!("{front}{line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_columns() {
        let rows = [vec!["name".to_owned(), "what".into()], vec!["a".into(), "long ".repeat(20)]];
        assert_eq!(table(&rows, 14), "name  what\na     long l…\n".replace("long l…", "long lo…"));
        assert_eq!(table(&rows, 200).lines().next(), Some("name  what"));
    }

    #[test]
    fn a_paragraph_is_as_far_in_as_its_head() {
        assert_eq!(paragraph("- ", "one two three", 9), "- one two\n  three\n");
        assert_eq!(paragraph("  ", "abcdefghijkl", 10), "  abcdefgh\n  ijkl\n");
    }
}
