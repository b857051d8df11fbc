//! A report as one HTML file that needs nothing else: tables, plots, and a map that plays.

use super::svg::{Axis, Line, escaped, plot};
use super::{Report, table};

/// What is drawn is not made narrower than letters can be read in: on a phone it is scrolled. A name on the map has a
/// rim in the colour of the page, so that lines behind it do not cross it out.
const STYLE: &str = ":root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
pre{font:13px/1.45 ui-monospace,monospace;overflow-x:auto;background:#f6f6f4;padding:1em}svg{width:100%;display:block}\
.drawn{overflow-x:auto}.drawn svg{min-width:640px}svg text{font:11px system-ui,sans-serif;fill:#444}\
#map text{paint-order:stroke;stroke:#fff;stroke-width:4px}#map .thing{stroke:#888}\
.grid{stroke:#ddd;fill:none}h2{margin-top:2em}\
button{font:inherit;padding:.3em 1em;min-width:5em}\
@media(prefers-color-scheme:dark){body{background:#1b1b1b;color:#ddd}pre{background:#262626}svg text{fill:#bbb}\
.grid{stroke:#3a3a3a}.drawn svg{filter:brightness(1.25)}#map text{stroke:#1b1b1b}}";

/// The report as an HTML file.
pub fn of(report: &Report) -> String {
    let series = &report.series;
    let over_time = |values: &[f64], factor: f64| -> Vec<(f64, f64)> {
        let at = |index: usize| (index as f64 + 0.5) * series.interval;
        values.iter().enumerate().map(|(index, value)| (at(index), value * factor)).collect()
    };
    let axis = |name| Axis { name, is_log: false };
    let logarithmic = |name| Axis { name, is_log: true };
    let time = axis("virtual time in seconds");
    let requests = plot(
        time,
        axis("requests a second"),
        &[
            Line { name: "made", points: over_time(&series.made, 1.0) },
            Line { name: "answered ok", points: over_time(&series.answered, 1.0) },
            Line { name: "refused or lost", points: over_time(&series.refused, 1.0) },
        ],
    );
    let latency = plot(
        time,
        logarithmic("latency in ms"),
        &[
            Line { name: "median", points: over_time(&series.median, 1e3) },
            Line { name: "99 %", points: over_time(&series.p99, 1e3) },
        ],
    );
    let waiting = plot(
        time,
        axis("requests"),
        &[Line { name: "waiting for a worker", points: over_time(&series.waiting, 1.0) }],
    );
    let cumulative = |group: &super::GroupReport| -> Vec<(f64, f64)> {
        let all = group.cumulative.last().map_or(1, |(_, count)| *count) as f64;
        group
            .cumulative
            .iter()
            .map(|(time, count)| (*time as f64 / 1e6, *count as f64 / all * 100.0))
            .collect()
    };
    let lines: Vec<_> =
        report.groups.iter().map(|group| Line { name: &group.name, points: cumulative(group) }).collect();
    let distribution = plot(logarithmic("latency in ms"), axis("% of requests"), &lines);
    let name = escaped(&report.name);
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{name}</title><style>{STYLE}</style>\n\
         <h1>{name}</h1>\n<pre>{}</pre>\n<p>The plots show the first replica, warm-up ({:.0} s) included.</p>\n\
         <h2>Requests</h2>\n{}<h2>Latency</h2>\n{}<h2>Latency: how many are answered within it</h2>\n{}\
         <h2>Queues</h2>\n{}<h2>Map</h2>\n{}</html>\n",
        escaped(&table::of(report)),
        report.warm_up as f64 / 1e9,
        drawn(&requests),
        drawn(&latency),
        drawn(&distribution),
        drawn(&waiting),
        report.map.html()
    )
}

/// What scrolls where it is wider than the page.
pub(super) fn drawn(svg: &str) -> String {
    format!("<div class=\"drawn\">{svg}</div>\n")
}
