//! A report as one HTML file that needs nothing else: tables, plots, and a map of the gateways that plays.

use super::svg::{Axis, Line, escaped, plot};
use super::{Report, table};

/// Gateways on a line of the map, at the most.
const MAP_COLUMNS: usize = 40;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#222}\
pre{font:13px/1.45 ui-monospace,monospace;overflow-x:auto;background:#f6f6f4;padding:1em}svg{width:100%}\
svg text{font:11px system-ui,sans-serif;fill:#444}.grid{stroke:#ddd;fill:none}h2{margin-top:2em}\
@media(prefers-color-scheme:dark){body{background:#1b1b1b;color:#ddd}pre{background:#262626}svg text{fill:#bbb}\
.grid{stroke:#3a3a3a}}";

/// Plays the map: a gateway is as dark as it is busy, and red where it cannot be reached.
const SCRIPT: &str = "const at=document.getElementById('at'),when=document.getElementById('when'),\
play=document.getElementById('play'),cells=document.querySelectorAll('#map rect');let timer=null;\
function show(){const now=SERIES[at.value]||[];when.textContent=((+at.value+1)*INTERVAL).toFixed(0)+' s';\
cells.forEach((cell,i)=>{const busy=now[i]??0;cell.setAttribute('fill',busy<0?'#D00':`hsl(203,75%,${88-65*Math.min(1,\
busy)}%)`)})}at.oninput=show;play.onclick=()=>{if(timer){clearInterval(timer);timer=null;play.textContent='play'}else\
{play.textContent='pause';timer=setInterval(()=>{at.value=(+at.value+1)%SERIES.length;show()},100)}};show();";

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
    let waiting =
        plot(time, axis("requests"), &[Line { name: "waiting", points: over_time(&series.waiting, 1.0) }]);
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
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title><style>{STYLE}</style>\n\
         <h1>{name}</h1>\n<pre>{}</pre>\n<p>The plots show the first replica, warm-up ({:.0} s) included.</p>\n\
         <h2>Requests</h2>\n{requests}<h2>Latency</h2>\n{latency}<h2>Latency, cumulated</h2>\n{distribution}\
         <h2>Queues</h2>\n{waiting}<h2>Gateways</h2>\n{}</html>\n",
        escaped(&table::of(report)),
        report.warm_up as f64 / 1e9,
        map(report)
    )
}

/// The gateways as squares, and a slider through the run.
fn map(report: &Report) -> String {
    let names = report.gateways.iter().flat_map(|group| (0..group.count).map(move |at| (group, at)));
    let mut squares = String::new();
    let mut count = 0;
    for (index, (group, at)) in names.enumerate() {
        let (x, y) = (index % MAP_COLUMNS * 20, index / MAP_COLUMNS * 20);
        let title = format!("{} {at}: {:.1} % utilised", escaped(&group.name), group.each[at] * 100.0);
        squares +=
            &format!("<rect x=\"{x}\" y=\"{y}\" width=\"18\" height=\"18\"><title>{title}</title></rect>");
        count = index + 1;
    }
    let (width, height) = (count.clamp(1, MAP_COLUMNS) * 20, count.div_ceil(MAP_COLUMNS) * 20);
    let series: Vec<String> = (report.series.gateways.iter())
        .map(|gateways| gateways.iter().map(|busy| format!("{busy:.2}")).collect::<Vec<_>>().join(","))
        .collect();
    format!(
        "<p>A square is a gateway: the darker the busier, red where devices cannot reach it.</p>\n\
         <svg id=\"map\" viewBox=\"0 0 {width} {height}\" style=\"max-width:{width}px\">{squares}</svg>\n\
         <p><button id=\"play\">play</button> <input id=\"at\" type=\"range\" min=\"0\" max=\"{}\" value=\"0\"> \
         <span id=\"when\"></span></p>\n\
         <script>const INTERVAL={};const SERIES=[[{}]];{SCRIPT}</script>\n",
        series.len().saturating_sub(1),
        report.series.interval,
        series.join("],[")
    )
}
