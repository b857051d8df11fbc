//! What is printed: a line when something begins, a table of all that was seen, or one JSON document.

use std::io::{IsTerminal, stderr, stdout};
use std::time::Duration;

use serde_json::{Value, json};

use crate::attacks::{ATTACKS, Attack};
use crate::trial::{Latencies, Trial};

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const PLAIN: &str = "\x1b[0m";

/// A trial with what it fell short of.
pub struct Row {
    pub attack: &'static Attack,
    pub trial: Trial,
    pub shortfalls: Vec<String>,
}

/// On stderr: what runs now, and what became of it.
pub fn begins(number: usize, of: usize, attack: &Attack) {
    eprintln!("[{number}/{of}] {}: {}", attack.name, attack.about);
}

/// The other half of it.
pub fn ends(row: &Row) {
    let Trial { strikes, refusals, took, .. } = &row.trial;
    let colour = |colour| if stderr().is_terminal() { colour } else { "" };
    let (start, end) = (colour(if row.shortfalls.is_empty() { GREEN } else { RED }), colour(PLAIN));
    eprintln!("    {start}{}{end}  ({strikes} done, {refusals} refused, {:.0?})", verdict(row), took);
}

fn verdict(row: &Row) -> String {
    if row.shortfalls.is_empty() { "held".into() } else { row.shortfalls.join("; ") }
}

pub fn list() {
    let width = ATTACKS.iter().map(|attack| attack.name.len()).max().unwrap_or(0);
    for attack in ATTACKS {
        println!("{:width$}  {}", attack.name, attack.about);
    }
}

/// On stdout. Latencies in milliseconds: median, 99th percentile, longest; memory in MB over what it was.
pub fn table(rows: &[Row]) {
    let width = rows.iter().map(|row| row.attack.name.len()).max().unwrap_or(0);
    println!(
        "{:width$}  {:>16}  {:>22}  {:>16}  {:>12}  {:>13}  {:>8}  {:>8}",
        "attack",
        "alone p50/p99",
        "during p50/p99/max",
        "after p50/p99",
        "visit s",
        "memory +/kept",
        "children",
        "log KB"
    );
    for row in rows {
        let Trial { alone, during, after, visits_alone, visits, memory, log_bytes, .. } = &row.trial;
        let short =
            |part: &Latencies| format!("{}/{}", shown(part.percentile(50)), shown(part.percentile(99)));
        let over = |bytes: u64| bytes.saturating_sub(memory.before) >> 20;
        println!(
            "{:width$}  {:>16}  {:>22}  {:>16}  {:>12}  {:>13}  {:>8}  {:>8}  {}",
            row.attack.name,
            short(alone),
            format!("{}/{}", short(during), shown(during.percentile(100))),
            short(after),
            format!("{:.2}/{:.2}", visits_alone.longest.as_secs_f64(), visits.longest.as_secs_f64()),
            format!("{}/{}", over(memory.peak), over(memory.given_back_to)),
            memory.children_peak >> 20,
            log_bytes >> 10,
            marked(row),
        );
    }
}

fn marked(row: &Row) -> String {
    if !stdout().is_terminal() {
        return verdict(row);
    }
    format!("{}{}{PLAIN}", if row.shortfalls.is_empty() { GREEN } else { RED }, verdict(row))
}

fn shown(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1e3;
    if milliseconds < 100.0 { format!("{milliseconds:.1}") } else { format!("{milliseconds:.0}") }
}

/// On stdout: all rows as one document, times in microseconds and memory in bytes.
pub fn json(rows: &[Row]) {
    let latencies = |part: &Latencies| {
        let at = |percent| part.percentile(percent).as_micros() as u64;
        json!({
            "requests": part.count(), "unanswered": part.unanswered, "not_ok": part.wrong,
            "p50_us": at(50), "p99_us": at(99), "max_us": at(100),
        })
    };
    let row = |row: &Row| {
        let Trial { alone, during, after, visits_alone, visits, memory, .. } = &row.trial;
        json!({
            "attack": row.attack.name,
            "held": row.shortfalls.is_empty(), "shortfalls": row.shortfalls,
            "alone": latencies(alone), "during": latencies(during), "after": latencies(after),
            "longest_visit_alone_us": visits_alone.longest.as_micros() as u64,
            "longest_visit_us": visits.longest.as_micros() as u64,
            "visits": visits.count, "visits_failed": visits.failed,
            "memory_before": memory.before, "memory_peak": memory.peak, "memory_after": memory.given_back_to,
            "children_memory_peak": memory.children_peak, "log_bytes": row.trial.log_bytes,
            "done": row.trial.strikes, "refused": row.trial.refusals, "ended": row.trial.ended,
        })
    };
    println!("{}", Value::Array(rows.iter().map(row).collect()));
}
