//! What came out: as Markdown tables, which read well on a terminal too, or as JSON.

use crate::rounds::Plan;
use crate::spread::Spread;
use crate::table::{Figure, Row, Table};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// Decimals of a ratio, and of one that is small.
const RATIO_DECIMALS: usize = 2;
const SMALL_RATIO_DECIMALS: usize = 4;

/// Below this a ratio is small.
const SMALL_RATIO: f64 = 0.1;

/// All measurements of a run, and what they come to.
#[derive(Serialize)]
pub struct Report {
    rounds: u32,
    seconds: f64,
    cores: usize,
    tables: Vec<Summary>,
}

#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    table: Table,
    rows: Vec<Row>,
    ratios: Vec<Row>,
}

impl Report {
    /// Sums up these tables.
    pub fn new(plan: &Plan, tables: Vec<Table>) -> Report {
        let summary = |mut table: Table| {
            table.warn_of_the_load();
            Summary { rows: table.rows(), ratios: table.ratio_rows(), table }
        };
        Report {
            rounds: plan.rounds,
            seconds: plan.measured.as_secs_f64(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            tables: tables.into_iter().map(summary).collect(),
        }
    }

    /// The tables that it is of.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().map(|summary| &summary.table)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Report { rounds, seconds, cores, .. } = self;
        writeln!(
            f,
            "{cores} cores; {rounds} rounds, {seconds} s each; median of the rounds (lowest–highest)."
        )?;
        for Summary { table, rows, ratios } in &self.tables {
            writeln!(f, "\n## {}\n", table.title)?;
            let decimals = |place: usize, _| table.figures[place].decimals;
            write_table(f, "contender", &table.figures, decimals, rows)?;
            if !ratios.is_empty() {
                writeln!(f)?;
                let compared: Vec<Figure> =
                    table.figures.iter().filter(|figure| figure.compared).copied().collect();
                let decimals = |_, spread: Spread| match spread.median < SMALL_RATIO {
                    true => SMALL_RATIO_DECIMALS,
                    false => RATIO_DECIMALS,
                };
                write_table(f, "ratio", &compared, decimals, ratios)?;
            }
            if !table.notes.is_empty() {
                writeln!(f)?;
            }
            table.notes.iter().try_for_each(|note| writeln!(f, "- {note}"))?;
        }
        Ok(())
    }
}

/// `decimals` are those of a figure, by its place, with this spread.
fn write_table(
    f: &mut Formatter<'_>,
    of: &str,
    figures: &[Figure],
    decimals: impl Fn(usize, Spread) -> usize,
    rows: &[Row],
) -> fmt::Result {
    let names = figures.iter().map(|figure| figure.name);
    let titles: Vec<String> = ["setting", of].into_iter().chain(names).map(str::to_owned).collect();
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let spreads = row.spreads.iter().enumerate();
            let spreads = spreads.map(|(place, &spread)| cell(spread, decimals(place, spread)));
            [row.setting.clone(), row.contender.clone()].into_iter().chain(spreads).collect()
        })
        .collect();
    let width = |column: usize| {
        cells.iter().chain([&titles]).map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    write_line(f, &titles, &widths)?;
    write_line(f, &widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>(), &widths)?;
    cells.iter().try_for_each(|row| write_line(f, row, &widths))
}

fn cell(spread: Spread, decimals: usize) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
}

fn write_line(f: &mut Formatter<'_>, cells: &[String], widths: &[usize]) -> fmt::Result {
    for (cell, width) in cells.iter().zip(widths) {
        write!(f, "| {cell:<width$} ")?;
    }
    writeln!(f, "|")
}
