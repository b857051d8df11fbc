//! What came of a run, for people and for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::ledger::Contradiction;
use crate::run::{Options, Report};

/// Contradictions of each kind that are printed with their history; the others are counted.
const SHOWN: usize = 2;

/// In lines.
pub fn text(options: &Options, report: &Report) -> String {
    let mut text = String::new();
    let counts = &report.counts;
    let target = format!("{:?}", options.settings.target).to_lowercase();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "seed {} on {target}: {} rounds, {} kills and cuts, {:.1} s",
        options.seed,
        report.rounds,
        report.kills,
        report.took.as_secs_f64()
    );
    let _ = writeln!(
        text,
        "{} requests and {} messages sent, {} repetitions, {} acknowledgements; {} answers and {} messages received",
        counts.requests,
        counts.messages,
        counts.repetitions,
        counts.acknowledged,
        counts.answers,
        counts.received
    );
    if let Some((first, last)) = report.resources {
        let _ = writeln!(
            text,
            "the gateways after the first round and after the last: {} and {} descriptors, {} and {} KiB of memory, \
             {} and {} files, {} and {} bytes",
            first.descriptors,
            last.descriptors,
            first.memory_kib,
            last.memory_kib,
            first.files,
            last.files,
            first.bytes,
            last.bytes
        );
    }
    if report.contradictions.is_empty() {
        text.push_str("nothing that was acknowledged is lost, and nothing contradicts itself\n");
        return text;
    }
    let _ = writeln!(text, "the last of the logs:\n{}", report.logs);
    for (fault, count) in &counts.contradictions {
        let of_kind = report.contradictions.iter().filter(|contradiction| contradiction.fault == *fault);
        for contradiction in of_kind.take(SHOWN) {
            let _ = writeln!(text, "{contradiction}");
        }
        if let Some(more) = usize::try_from(*count).ok().and_then(|count| count.checked_sub(SHOWN + 1)) {
            let _ = writeln!(text, "    and {} more of `{}`", more + 1, fault.name());
        }
    }
    let _ = writeln!(text, "in round {} of seed {} on {target}", report.rounds, options.seed);
    if let Some(folder) = &report.folder {
        let _ = writeln!(text, "the folder of the servers is {}", folder.display());
    }
    text
}

/// As one document.
pub fn json(options: &Options, report: &Report) -> Value {
    let counts = &report.counts;
    let resources = report.resources.map(|(first, last)| {
        let one = |resources: crate::resources::Resources| {
            json!({
                "descriptors": resources.descriptors,
                "memory_kib": resources.memory_kib,
                "files": resources.files,
                "bytes": resources.bytes,
            })
        };
        json!({ "first": one(first), "last": one(last) })
    });
    let found: serde_json::Map<String, Value> = counts
        .contradictions
        .iter()
        .map(|(fault, count)| (fault.name().to_owned(), (*count).into()))
        .collect();
    json!({
        "seed": options.seed,
        "rounds": report.rounds,
        "kills": report.kills,
        "seconds": report.took.as_secs_f64(),
        "requests": counts.requests,
        "messages": counts.messages,
        "repetitions": counts.repetitions,
        "acknowledged": counts.acknowledged,
        "answers": counts.answers,
        "received": counts.received,
        "found": found,
        "contradictions": report.contradictions.iter().map(Contradiction::json).collect::<Vec<_>>(),
        "resources": resources,
        "logs": report.logs,
        "folder": report.folder,
    })
}
