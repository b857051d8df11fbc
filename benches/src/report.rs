//! What came out: as Markdown tables, which read well on a terminal too, or as JSON.

use crate::contender::{ALL, RATIOS};
use crate::rounds::{Plan, Turn};
use crate::spread::Spread;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// All measurements of a run, and what they come to.
#[derive(Serialize)]
pub struct Report {
    rounds: u32,
    seconds: f64,
    cores: usize,
    figures: Vec<Row>,
    /// Of two turns in the same round, not of medians: what disturbs a round disturbs both.
    ratios: Vec<Row>,
    turns: Vec<Turn>,
}

/// One server, or one ratio of two, at one number in flight. Latencies are in microseconds.
#[derive(Serialize)]
struct Row {
    in_flight: u16,
    of: String,
    requests_per_second: Spread,
    p50: Spread,
    p99: Spread,
}

impl Report {
    /// Sums up these turns.
    pub fn new(plan: &Plan, turns: Vec<Turn>) -> Report {
        let mut figures = Vec::new();
        let mut ratios = Vec::new();
        for &in_flight in &plan.in_flight {
            // In the order of the rounds, so that two of these lists go together turn by turn.
            let of = |contender| {
                turns.iter().filter(move |turn| turn.in_flight == in_flight && turn.contender == contender)
            };
            for (place, contender) in ALL.iter().enumerate() {
                let row =
                    Row::of(in_flight, contender.name.to_owned(), |figure| of(place).map(figure).collect());
                figures.extend(row);
            }
            for (upper, lower) in RATIOS {
                let name = format!("{} / {}", ALL[upper].name, ALL[lower].name);
                let row = Row::of(in_flight, name, |figure| {
                    of(upper).zip(of(lower)).map(|(upper, lower)| figure(upper) / figure(lower)).collect()
                });
                ratios.extend(row);
            }
        }
        let cores = std::thread::available_parallelism().map_or(1, Into::into);
        Report { rounds: plan.rounds, seconds: plan.measured.as_secs_f64(), cores, figures, ratios, turns }
    }
}

impl Row {
    /// `values` yields each round's value of a figure; `None` if there was no round.
    fn of(in_flight: u16, of: String, values: impl Fn(fn(&Turn) -> f64) -> Vec<f64>) -> Option<Row> {
        Some(Row {
            in_flight,
            of,
            requests_per_second: Spread::of(values(|turn| turn.requests_per_second))?,
            p50: Spread::of(values(|turn| turn.p50_us))?,
            p99: Spread::of(values(|turn| turn.p99_us))?,
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { rounds, seconds, cores, .. } = self;
        writeln!(f, "`localCode` `5 7`, QoS 1, one connection, {cores} cores; {rounds} × {seconds} s each.")?;
        writeln!(f, "Median of the rounds (lowest–highest).\n")?;
        table(f, ["in flight", "server", "requests/s", "p50 µs", "p99 µs"], &self.figures, 0)?;
        writeln!(f)?;
        table(f, ["in flight", "ratio", "requests/s", "p50", "p99"], &self.ratios, 2)
    }
}

fn table(f: &mut Formatter<'_>, titles: [&str; 5], rows: &[Row], decimals: usize) -> fmt::Result {
    let titles = titles.map(str::to_owned);
    let cell = |spread: Spread| {
        format!("{:.decimals$} ({:.decimals$}–{:.decimals$})", spread.median, spread.min, spread.max)
    };
    let cells: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            let figures = [row.requests_per_second, row.p50, row.p99].map(cell);
            let [requests, p50, p99] = figures;
            [row.in_flight.to_string(), row.of.clone(), requests, p50, p99]
        })
        .collect();
    let widths: [usize; 5] = std::array::from_fn(|column| {
        cells.iter().chain([&titles]).map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    line(f, &titles, widths)?;
    line(f, &widths.map(|width| "-".repeat(width)), widths)?;
    cells.iter().try_for_each(|row| line(f, row, widths))
}

fn line(f: &mut Formatter<'_>, cells: &[String; 5], widths: [usize; 5]) -> fmt::Result {
    for (cell, width) in cells.iter().zip(widths) {
        write!(f, "| {cell:<width$} ")?;
    }
    writeln!(f, "|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn turn(round: u32, contender: usize, requests_per_second: f64) -> Turn {
        Turn {
            round,
            in_flight: 16,
            contender,
            server: ALL[contender].name,
            requests: 1,
            requests_per_second,
            p50_us: 1.0,
            p99_us: 2.0,
            max_us: 3.0,
        }
    }

    #[test]
    fn ratios_are_those_of_one_round() {
        // A machine twice as fast in the second round.
        let turns = vec![
            turn(0, 0, 10.0),
            turn(0, 1, 20.0),
            turn(0, 2, 10.0),
            turn(0, 3, 5.0),
            turn(1, 1, 40.0),
            turn(1, 2, 20.0),
            turn(1, 3, 10.0),
            turn(1, 0, 20.0),
        ];
        let plan = Plan { rounds: 2, measured: Duration::from_secs(1), in_flight: vec![16] };
        let report = Report::new(&plan, turns);
        assert_eq!(report.figures[0].requests_per_second, Spread { median: 15.0, min: 10.0, max: 20.0 });
        let ratios: Vec<Spread> = report.ratios.iter().map(|row| row.requests_per_second).collect();
        let constant = |value| Spread { median: value, min: value, max: value };
        assert_eq!(ratios, [constant(0.5), constant(2.0), constant(4.0), constant(2.0)]);
    }
}
