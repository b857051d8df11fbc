//! What a benchmark found, for people and for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::load::{Measurement, Plan};
use super::tally::{Tally, Times, nanoseconds};

/// The percentiles that are shown: heading, name in JSON, quantile.
const QUANTILES: [(&str, &str, f64); 4] =
    [("p50", "p50", 0.5), ("p90", "p90", 0.9), ("p99", "p99", 0.99), ("p99.9", "p99_9", 0.999)];

/// What a summary is about.
pub struct Summary {
    pub plan: Plan,
    /// Host and port.
    pub address: String,
    /// Whether answers say how long the request was queued.
    pub queued_is_known: bool,
    /// Whether they say how long it ran.
    pub run_is_known: bool,
    pub measurement: Measurement,
}

impl Summary {
    /// What is known of the times of right answers.
    fn times(&self) -> Vec<(&'static str, &Times)> {
        let Tally { latency, late, queued, run, .. } = &self.measurement.tally;
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
        let seconds = self.measurement.elapsed.as_secs_f64();
        if seconds > 0.0 { self.measurement.tally.right as f64 / seconds } else { 0.0 }
    }

    /// As a table of at most 80 columns, but for messages of the gateway.
    pub fn table(&self) -> String {
        let Self { plan, measurement, .. } = self;
        let tally = &measurement.tally;
        let load = match plan.rate {
            Some(rate) => format!("{rate}/s due, at most {} in flight", plan.concurrency),
            None => format!("{} in flight", plan.concurrency),
        };
        let plural = if plan.connections == 1 { "" } else { "s" };
        let mut table = format!(
            "{} for {}: {load} on {} connection{plural}\n\n",
            self.address,
            time(nanoseconds(measurement.elapsed)),
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
            ("not sent", measurement.unsent, "were due and could not be sent in time"),
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
        let Self { plan, measurement, .. } = self;
        let tally = &measurement.tally;
        let wrong: Map<String, Value> =
            tally.wrong.iter().map(|(kind, wrong)| ((*kind).to_owned(), wrong.count.into())).collect();
        let mut object = json!({
            "address": self.address,
            "rate": plan.rate,
            "concurrency": plan.concurrency,
            "connections": plan.connections,
            "seconds": measurement.elapsed.as_secs_f64(),
            "interrupted": measurement.interrupted,
            "requests": tally.sent,
            "answered": tally.right,
            "errors": wrong,
            "lost": tally.lost.count,
            "not_sent": measurement.unsent,
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
        let tally = &self.measurement.tally;
        let unsent = if self.measurement.interrupted { 0 } else { self.measurement.unsent };
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
    use std::time::{Duration, Instant};

    use offload_client::{Answer, ErrorKind, WireError};

    use super::super::schedule::Extent;
    use super::super::tally::Verdict;
    use super::*;

    const PLAN: Plan = Plan {
        rate: Some(50),
        concurrency: 8,
        connections: 2,
        warm_up: Duration::ZERO,
        extent: Extent::Requests(101),
        timeout: Duration::from_secs(10),
    };

    /// A hundred answers that took 1 to 100 ms, a busy one and one request in flight.
    fn measurement() -> Measurement {
        let mut tally = Tally::new();
        let due = Instant::now();
        let answer = Answer {
            outcome: offload_client::Outcome::Exited(0),
            queue_us: 12,
            run_us: 345,
            ..Answer::failed(None, WireError::new(ErrorKind::Busy, "full"))
        };
        let busy = Answer::failed(None, WireError::new(ErrorKind::Busy, "full"));
        for number in 0..102 {
            tally.sent(due, due + Duration::from_micros(7));
            let now = due + Duration::from_millis(number + 1);
            match number {
                ..100 => tally.ended(due, now, Verdict::from(Ok(answer.clone()))).unwrap(),
                100 => tally.ended(due, now, Verdict::from(Ok(busy.clone()))).unwrap(),
                _ => {}
            }
        }
        Measurement { tally, elapsed: Duration::from_secs(2), unsent: 3, interrupted: true, over: None }
    }

    fn summary(measurement: Measurement) -> Summary {
        Summary {
            plan: PLAN,
            address: "box:1883".to_owned(),
            queued_is_known: true,
            run_is_known: true,
            measurement,
        }
    }

    #[test]
    fn a_table_is_aligned_and_fits_a_terminal() {
        let table = summary(measurement()).table();
        let expected = "\
box:1883 for 2.00 s: 50/s due, at most 8 in flight on 2 connections

answered           100  50.0/s
busy                 1  full
not sent             3  were due and could not be sent in time
in flight            1  when it was interrupted

                mean        p50        p90        p99      p99.9        max
latency      50.5 ms    50.0 ms    90.0 ms    99.0 ms     100 ms     100 ms
late         7.00 µs    7.00 µs    7.00 µs    7.00 µs    7.00 µs    7.00 µs
queued       12.0 µs    12.0 µs    12.0 µs    12.0 µs    12.0 µs    12.0 µs
run           345 µs     345 µs     345 µs     345 µs     345 µs     345 µs
";
        assert_eq!(table, expected);
    }

    #[test]
    fn what_ctrl_c_kept_from_being_sent_is_no_failure() {
        assert_eq!(summary(measurement()).failures().as_deref(), Some("1 busy"));
        let ended = Measurement { interrupted: false, ..measurement() };
        assert_eq!(summary(ended).failures().as_deref(), Some("1 busy, 3 not sent"));
        let nothing = summary(Measurement { tally: Tally::new(), unsent: 0, ..measurement() });
        assert_eq!(nothing.failures(), None);
        let table = nothing.table();
        assert!(table.ends_with("answered             0  0.0/s\n"), "no percentiles of nothing: {table}");
    }

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
