//! What a benchmark found, for people and for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::load::{Outcome, Plan};
use super::tally::{Tally, Times};

/// The percentiles that are shown: heading, name in JSON, quantile.
const QUANTILES: [(&str, &str, f64); 4] =
    [("p50", "p50", 0.5), ("p90", "p90", 0.9), ("p99", "p99", 0.99), ("p99.9", "p99_9", 0.999)];

/// What a summary is about.
pub struct Summary<'a> {
    pub plan: &'a Plan,
    /// Host and port.
    pub address: &'a str,
    /// Whether answers say how long the request was queued.
    pub queued_is_known: bool,
    /// Whether they say how long it ran.
    pub run_is_known: bool,
    pub outcome: &'a Outcome,
}

impl Summary<'_> {
    /// What is known of the times of right answers.
    fn times(&self) -> Vec<(&'static str, &Times)> {
        let Tally { latency, late, queued, run, .. } = &self.outcome.tally;
        [
            (true, "latency", latency),
            (self.plan.rate.is_some(), "late", late),
            (self.queued_is_known, "queued", queued),
            (self.run_is_known, "run", run),
        ]
        .into_iter()
        .filter_map(|(known, name, times)| known.then_some((name, times)))
        .collect()
    }

    fn throughput(&self) -> f64 {
        let seconds = self.outcome.elapsed.as_secs_f64();
        if seconds > 0.0 { self.outcome.tally.right as f64 / seconds } else { 0.0 }
    }

    /// As a table of at most 80 columns, but for messages of the gateway.
    pub fn table(&self) -> String {
        let Self { plan, outcome, .. } = self;
        let tally = &outcome.tally;
        let load = match plan.rate {
            Some(rate) => format!("{rate}/s due, at most {} in flight", plan.concurrency),
            None => format!("{} in flight", plan.concurrency),
        };
        let plural = if plan.connections == 1 { "" } else { "s" };
        let mut table = format!(
            "{} for {:.1} s: {load} on {} connection{plural}\n\n",
            self.address,
            outcome.elapsed.as_secs_f64(),
            plan.connections,
        );
        let mut count = |what: &str, count: u64, note: &str| {
            let line = format!("{what:<12}{count:>10}  {note}");
            let _ = writeln!(table, "{}", line.trim_end());
        };
        count("answered", tally.right, &format!("{:.1}/s", self.throughput()));
        for (kind, wrong) in &tally.wrong {
            count(kind, wrong.count, &wrong.first);
        }
        for (what, number, note) in [
            ("lost", tally.lost.count, tally.lost.first.as_str()),
            ("not sent", outcome.unsent, "were due; so many were in flight already"),
            ("in flight", tally.in_flight(), "when it was interrupted"),
        ] {
            if number > 0 {
                count(what, number, note);
            }
        }
        if tally.right > 0 {
            table.push_str(&self.percentiles());
        }
        table
    }

    fn percentiles(&self) -> String {
        let mut table = format!("\n{:<9}", "");
        let headings = ["mean"].into_iter().chain(QUANTILES.map(|(heading, ..)| heading)).chain(["max"]);
        headings.for_each(|heading| table.push_str(&format!("{heading:>11}")));
        for (name, times) in self.times() {
            let _ = write!(table, "\n{name:<9}");
            let cells = [times.mean() as u64].into_iter();
            let cells = cells.chain(QUANTILES.map(|(.., quantile)| times.value_at_quantile(quantile)));
            cells.chain([times.max()]).for_each(|cell| table.push_str(&format!("{:>11}", time(cell))));
        }
        table + "\n"
    }

    /// As one JSON object on one line.
    pub fn json(&self) -> String {
        let Self { plan, outcome, .. } = self;
        let tally = &outcome.tally;
        let wrong: Map<String, Value> =
            tally.wrong.iter().map(|(kind, wrong)| ((*kind).to_owned(), wrong.count.into())).collect();
        let mut object = json!({
            "address": self.address,
            "rate": plan.rate,
            "concurrency": plan.concurrency,
            "connections": plan.connections,
            "seconds": outcome.elapsed.as_secs_f64(),
            "interrupted": outcome.interrupted,
            "requests": tally.sent,
            "answered": tally.right,
            "errors": wrong,
            "lost": tally.lost.count,
            "not_sent": outcome.unsent,
            "in_flight": tally.in_flight(),
            "answered_per_second": self.throughput(),
        });
        for (name, times) in self.times() {
            object[format!("{name}_us")] =
                if tally.right > 0 { percentiles_as_json(times) } else { Value::Null };
        }
        object.to_string()
    }

    /// What was not as it should be, if anything: `3 busy, 1 lost`.
    pub fn failures(&self) -> Option<String> {
        let tally = &self.outcome.tally;
        let unsent = if self.outcome.interrupted { 0 } else { self.outcome.unsent };
        let wrong = tally.wrong.iter().map(|(kind, wrong)| (wrong.count, *kind));
        let failures: Vec<_> = wrong
            .chain([(tally.lost.count, "lost"), (unsent, "not sent")])
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!failures.is_empty()).then(|| failures.join(", "))
    }
}

fn percentiles_as_json(times: &Times) -> Value {
    // Tenths: a gateway's own times are whole microseconds, which are kept as 3.001.
    let microseconds = |nanoseconds: f64| (nanoseconds / 100.0).round() / 10.0;
    let mut object = json!({ "mean": microseconds(times.mean()), "max": microseconds(times.max() as f64) });
    for (_, name, quantile) in QUANTILES {
        object[name] = microseconds(times.value_at_quantile(quantile) as f64).into();
    }
    object
}

/// Nanoseconds with three significant digits and a unit that suits them.
pub fn time(nanoseconds: u64) -> String {
    let microseconds = nanoseconds as f64 / 1000.0;
    let (value, unit) = match microseconds {
        // What would be rounded up to a thousand has the next unit.
        ..999.5 => (microseconds, "µs"),
        ..999_500.0 => (microseconds / 1000.0, "ms"),
        _ => (microseconds / 1_000_000.0, "s"),
    };
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (nanoseconds, expected) in [
            (0, "0.00 µs"),
            (1_234, "1.23 µs"),
            (12_345, "12.3 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (99_960_000, "100 ms"),
            (999_500_000, "1.00 s"),
            (123_456_000_000, "123 s"),
        ] {
            assert_eq!(time(nanoseconds), expected);
        }
    }
}
