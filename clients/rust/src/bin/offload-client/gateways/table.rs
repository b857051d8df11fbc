//! Status documents as an aligned table.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::message::text;

/// More run than there are workers where some of them sleep.
const HEADINGS: [&str; COLUMNS] =
    ["NAME", "STATE", "VERSION", "WORKERS", "RUNNING", "WAITING", "TAKES", "PROGRAMS"];

const COLUMNS: usize = 8;

const GAP: &str = "  ";

/// Stands for what a document does not say.
const UNKNOWN: &str = "-";

/// The cells of a gateway, without anything that a terminal would act on.
pub type Row = [String; COLUMNS];

/// What the table shows of a status document.
pub fn row(name: &str, document: &Value) -> Row {
    let word = |path: &str| document.pointer(path).and_then(Value::as_str).map(text);
    let count = |path: &str| document.pointer(path).and_then(Value::as_u64).map(|count| count.to_string());
    let words = |path: &str| {
        let words = document.pointer(path).and_then(Value::as_array);
        words.into_iter().flatten().filter_map(Value::as_str).map(text).collect::<Vec<_>>()
    };
    let mut takes = words("/capabilities/wasm");
    if document.pointer("/capabilities/native") == Some(&Value::Bool(true)) {
        takes.push("native".to_owned());
    }
    [
        Some(text(name)),
        word("/state"),
        word("/version"),
        count("/load/workers"),
        count("/load/running"),
        count("/load/waiting"),
        Some(takes.join(",")),
        Some(words("/capabilities/programs").join(",")),
    ]
    .map(|cell| cell.filter(|cell| !cell.is_empty()).unwrap_or_else(|| UNKNOWN.to_owned()))
}

/// The table. Of the last column, programs, only so much is shown as fits into this many columns of a terminal.
pub fn table(rows: &[Row], columns: Option<usize>) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let rows: Vec<&Row> = std::iter::once(&headings).chain(rows).collect();
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].width()).max().unwrap_or_default());
    let [before_programs @ .., _] = &widths;
    let room = columns.map(|columns| {
        let taken = before_programs.iter().map(|width| width + GAP.len()).sum();
        // Where not even the heading fits, lines are broken anyway.
        columns.saturating_sub(taken).max(HEADINGS[COLUMNS - 1].len())
    });
    let mut table = String::new();
    for [cells @ .., programs] in rows {
        for (cell, width) in cells.iter().zip(before_programs) {
            table.push_str(cell);
            table.push_str(&" ".repeat(width - cell.width()));
            table.push_str(GAP);
        }
        table.push_str(&cut(programs, room));
        table.push('\n');
    }
    table
}

fn cut(text: &str, room: Option<usize>) -> String {
    let Some(room) = room.filter(|room| text.width() > *room) else { return text.to_owned() };
    let mut left = room - 1;
    let kept = text.chars().take_while(|c| {
        let fits = left.checked_sub(c.width().unwrap_or_default());
        fits.inspect(|rest| left = *rest).is_some()
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jetson() -> Row {
        let document = json!({
            "state": "online", "name": "another", "version": "0.1.0",
            "capabilities": { "wasm": ["module", "component"], "native": true, "programs": ["add", "sieve", "sort"] },
            "load": { "workers": 4, "running": 5, "waiting": 12 },
            "later": [{}],
        });
        row("jetson-1", &document)
    }

    #[test]
    fn columns_are_aligned_and_fit_a_terminal() {
        let offline = row("nuc", &json!({ "state": "offline", "name": "nuc", "version": "0.1.0" }));
        let shown = table(&[jetson(), offline], Some(89));
        let expected = "\
NAME      STATE    VERSION  WORKERS  RUNNING  WAITING  TAKES                    PROGRAMS
jetson-1  online   0.1.0    4        5        12       module,component,native  add,siev…
nuc       offline  0.1.0    -        -        -        -                        -
";
        assert_eq!(shown, expected);
        assert!(table(&[jetson()], None).ends_with("module,component,native  add,sieve,sort\n"));
        // What does not fit at all is not cut to nothing.
        assert!(table(&[jetson()], Some(10)).ends_with("  add,sie…\n"));
    }

    #[test]
    fn what_a_stranger_publishes_is_lenient_and_harmless() {
        for document in [
            json!({}),
            json!({ "state": 1, "version": [], "load": "much", "capabilities": { "wasm": {}, "native": 1 } }),
            json!({ "load": { "workers": -1, "running": 0.5, "waiting": null }, "capabilities": null }),
        ] {
            assert_eq!(row("x", &document), ["x", "-", "-", "-", "-", "-", "-", "-"], "{document}");
        }
        let hostile =
            json!({ "state": "\u{1b}[2J", "capabilities": { "programs": ["a\nb", 1, "\u{202e}"] } });
        let [name, state, .., programs] = row("x\r\u{9b}", &hostile);
        assert_eq!([name, state, programs], ["x\\r\\u{9b}", "\\u{1b}[2J", "a\\nb,\\u{202e}"]);
    }

    #[test]
    fn what_is_wide_is_measured() {
        let wide = row("网关", &json!({ "capabilities": { "programs": ["程序程序程序"] } }));
        let shown = table(&[wide], Some(1));
        let expected = "\
NAME  STATE  VERSION  WORKERS  RUNNING  WAITING  TAKES  PROGRAMS
网关  -      -        -        -        -        -      程序程…
";
        assert_eq!(shown, expected);
    }
}
