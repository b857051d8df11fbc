//! A report as tables for a terminal.

use std::fmt::Write as _;

use super::notes::WIDTH;
use super::{CutBy, QUANTILES, Report};
use crate::scenario::units::Time;
use crate::statistics::Estimate;

/// In place of a number of which nothing is known: the latency of what was never answered, the energy of gateways whose
/// watts are not given.
const NONE: &str = "-";

/// Spaces between two columns.
const GAP: usize = 2;

/// The report's tables.
pub fn of(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(report, &mut text);
    text
}

fn write(report: &Report, text: &mut String) -> std::fmt::Result {
    let Report { name, seed, replicas, duration, warm_up, .. } = report;
    let how = match report.cut {
        CutBy::Scenario => "as the scenario says",
        CutBy::Mser => "by MSER",
        CutBy::MserInShortRun => "by MSER",
    };
    writeln!(text, "{name}: {} of virtual time, {replicas} replicas, seed {seed}", Time(*duration))?;
    let cut = *warm_up as f64 / 1e9;
    writeln!(text, "warm-up cut off: {cut:.0} s, {how}; intervals are of 95 %, over replicas")?;
    if report.cut == CutBy::MserInShortRun {
        writeln!(text, "the run is too short to tell the warm-up: simulate more time, or give warm_up")?;
    }
    writeln!(text)?;
    let mut rows =
        vec![vec!["devices".to_owned(), "made/s".into(), "ok/s".into(), "again/s".into(), "mean".into()]];
    rows[0].extend(QUANTILES.iter().map(|(name, _)| (*name).to_owned()));
    for group in &report.groups {
        let mut row = vec![
            group.name.clone(),
            number(group.made),
            number(group.throughput),
            number(group.again),
            time(group.mean),
        ];
        row.extend(group.quantiles.iter().map(|quantile| time(*quantile)));
        rows.push(row);
    }
    write_rows(&rows, text)?;
    let mut rows = vec![vec!["what became of requests *".to_owned(), String::new(), "part".into()]];
    for group in &report.groups {
        let row = |what: &str, part| vec![group.name.clone(), what.to_owned(), percent(part)];
        rows.extend(group.outcomes.iter().map(|(outcome, part)| row(outcome.name(), *part)));
        if group.left_open.mean > 0.0 {
            rows.push(row("left open", group.left_open));
        }
    }
    write_rows(&rows, text)?;
    let has_energy = report.gateways.iter().any(|gateway| gateway.energy.is_some());
    let energy = has_energy.then_some("J/request");
    let heads = ["gateways", "count", "utilised", "busiest", "waiting", "running", "unreachable"];
    let mut rows = vec![heads.into_iter().chain(energy).map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(report.gateways.iter().map(|gateway| {
        let mut row = vec![
            gateway.name.clone(),
            gateway.count.to_string(),
            percent(gateway.utilisation),
            percent(gateway.most_utilised),
            number(gateway.waiting),
            number(gateway.running),
            percent(gateway.unreachable),
        ];
        row.extend(energy.map(|_| gateway.energy.map_or_else(|| NONE.to_owned(), number)));
        row
    }));
    write_rows(&rows, text)?;
    if !report.links.is_empty() {
        let mut rows = vec![["links", "bytes/s", "lost/s"].map(str::to_owned).to_vec()];
        let links = report.links.iter();
        rows.extend(links.map(|link| vec![link.name.clone(), number(link.bytes), number(link.lost)]));
        write_rows(&rows, text)?;
    }
    write_sites(report, text)?;
    writeln!(text, "* of those that ended, or are left open: at the end, and for longer than each")?;
    writeln!(text, "  that was answered")?;
    let (joined, surplus) = report.repeated;
    writeln!(text, "of a replica: {} requests unfinished at the end,", number(report.unfinished))?;
    let (joined, surplus) = (number(joined), number(surplus));
    writeln!(text, "{joined} deliveries again of a known request, {surplus} surplus answers")?;
    text.push_str(&report.notes.text());
    Ok(())
}

/// Routers and modules, where there are any.
fn write_sites(report: &Report, text: &mut String) -> std::fmt::Result {
    if !report.sites.is_empty() {
        let heads = [
            "sites",
            "sent/s",
            "handed on/s",
            "came back/s",
            "taken/s",
            "no room/s",
            "given up/s",
            "on the way",
            "hops",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(report.sites.iter().map(|site| {
            let rates = [
                site.departed,
                site.handed_on,
                site.came_back,
                site.visited,
                site.refused,
                site.given_up,
                site.most,
            ];
            let numbers = rates.into_iter().map(number);
            std::iter::once(site.name.clone()).chain(numbers).chain([site.hops.to_string()]).collect()
        }));
        write_rows(&rows, text)?;
    }
    if !report.modules.is_empty() {
        let heads = ["modules", "compiled already", "compiled/s", "loaded already", "evicted/s"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(report.modules.iter().map(|of| {
            let cells = [percent(of.hits), number(of.made), percent(of.loaded), number(of.evicted)];
            std::iter::once(of.name.clone()).chain(cells).collect()
        }));
        write_rows(&rows, text)?;
    }
    Ok(())
}

/// Rows in columns as wide as they need, an empty line behind them. Columns for which a terminal has no room come
/// below, each time behind the first one.
pub fn write_rows(rows: &[Vec<String>], text: &mut String) -> std::fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut from = 1;
    while from < columns {
        let mut to = from;
        let mut wide = widths[0];
        while to < columns && (to == from || wide + GAP + widths[to] <= WIDTH) {
            wide += GAP + widths[to];
            to += 1;
        }
        for row in rows {
            let mut line = format!("{:<width$}", row[0], width = widths[0]);
            for (cell, width) in row.iter().zip(&widths).take(to).skip(from) {
                write!(line, "{:GAP$}{cell:>width$}", "")?;
            }
            writeln!(text, "{}", line.trim_end())?;
        }
        writeln!(text)?;
        from = to;
    }
    Ok(())
}

/// Seconds in a unit that suits them.
pub fn time(estimate: Estimate) -> String {
    if estimate.mean.is_nan() {
        return NONE.to_owned();
    }
    // A difference can be less than zero.
    let (factor, unit) = match estimate.mean.abs() {
        ..0.000_999_5 => (1e6, "µs"),
        ..0.999_5 => (1e3, "ms"),
        _ => (1.0, "s"),
    };
    format!("{} {unit}", number(estimate.scaled(factor)))
}

/// A part of a whole.
pub fn percent(estimate: Estimate) -> String {
    if estimate.mean.is_nan() {
        return NONE.to_owned();
    }
    format!("{} %", number(estimate.scaled(100.0)))
}

/// A number and its interval, with three significant digits of the number.
pub fn number(estimate: Estimate) -> String {
    let decimals = match estimate.mean.abs() {
        mean if mean.is_nan() => return NONE.to_owned(),
        0.0 => 0,
        ..0.0995 => 4,
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let Estimate { mean, half_width } = estimate;
    let text = format!("{mean:.decimals$}");
    // Rounded, it has no sign.
    let is_zero = text.chars().all(|letter| matches!(letter, '-' | '0' | '.'));
    let text = if is_zero { text.trim_start_matches('-') } else { &text };
    match half_width {
        Some(half) if mean != 0.0 => format!("{text} ± {half:.decimals$}"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(mean: f64, half_width: f64) -> Estimate {
        Estimate { mean, half_width: Some(half_width) }
    }

    #[test]
    fn a_difference_has_the_unit_of_its_size_and_a_sign_that_means_something() {
        assert_eq!(time(estimate(-0.002, 0.0)), "-2.00 ± 0.00 ms");
        assert_eq!(time(estimate(0.002, 0.0001)), "2.00 ± 0.10 ms");
        assert_eq!(number(estimate(-0.000_01, 0.0015)), "0.0000 ± 0.0015");
        assert_eq!(number(estimate(-0.1, 0.0015)), "-0.10 ± 0.00");
    }
}
