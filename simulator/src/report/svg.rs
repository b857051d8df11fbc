//! Plots as SVG, which needs nothing else.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 274.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 40.0;

/// Names of lines beside each other above a plot, how wide each is, and how high a row of them.
const NAMES: usize = 4;
const NAME_WIDTH: f64 = 170.0;
const NAME_HEIGHT: f64 = 16.0;

/// Colours that people with any eyes tell apart (M. Okabe and K. Ito, 2008).
const COLOURS: [&str; 6] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/// A line of a plot.
pub struct Line<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Its points, in the order of x.
    pub points: Vec<(f64, f64)>,
}

/// A scale of a plot.
#[derive(Clone, Copy)]
pub struct Axis<'a> {
    /// What it shows, with its unit.
    pub name: &'a str,
    /// Whether it is logarithmic.
    pub is_log: bool,
}

/// A plot of lines.
pub fn plot(x: Axis<'_>, y: Axis<'_>, lines: &[Line<'_>]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let top = top(lines);
    let (x_scale, y_scale) = (
        Scale::of(x, points().map(|point| point.0), LEFT, WIDTH - RIGHT),
        Scale::of(y, points().map(|point| point.1), HEIGHT - BOTTOM, top),
    );
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    // Writing to a string does not fail.
    let _ = draw(x, y, &x_scale, &y_scale, lines, &mut svg);
    svg + "</svg>\n"
}

/// Where the plot begins: below the names of its lines, which would hide them.
fn top(lines: &[Line<'_>]) -> f64 {
    TOP + NAME_HEIGHT * lines.len().div_ceil(NAMES).saturating_sub(1) as f64
}

/// The same as a file of its own.
pub fn file(x: Axis<'_>, y: Axis<'_>, lines: &[Line<'_>]) -> String {
    let style = "text{font:11px sans-serif;fill:#444}.grid{stroke:#ddd;fill:none}";
    let background = format!("<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>");
    let head = format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" ");
    let plot = plot(x, y, lines).replacen("<svg ", &head, 1);
    plot.replacen('>', &format!("><style>{style}</style>{background}"), 1)
}

fn draw(
    x: Axis<'_>,
    y: Axis<'_>,
    x_scale: &Scale,
    y_scale: &Scale,
    lines: &[Line<'_>],
    svg: &mut String,
) -> std::fmt::Result {
    let (right, top, bottom) = (WIDTH - RIGHT, top(lines), HEIGHT - BOTTOM);
    for mark in x_scale.marks() {
        let at = x_scale.at(mark);
        write!(svg, "<path class=\"grid\" d=\"M{at:.1} {top}V{bottom}\"/>")?;
        write!(
            svg,
            "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            short(mark)
        )?;
    }
    for mark in y_scale.marks() {
        let at = y_scale.at(mark);
        write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>")?;
        write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(mark)
        )?;
    }
    let middle = (LEFT + right) / 2.0;
    write!(
        svg,
        "<text x=\"{middle}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
        HEIGHT - 6.0,
        escaped(x.name)
    )?;
    let turned = format!("rotate(-90 14 {0:.1})\" x=\"14\" y=\"{0:.1}", (top + bottom) / 2.0);
    write!(svg, "<text transform=\"{turned}\" text-anchor=\"middle\">{}</text>", escaped(y.name))?;
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let shown = line.points.iter().filter(|(x, y)| x_scale.shows(*x) && y_scale.shows(*y));
        let mut path = String::new();
        for (x, y) in shown {
            let step = if path.is_empty() { 'M' } else { 'L' };
            write!(path, "{step}{:.1} {:.1}", x_scale.at(*x), y_scale.at(*y))?;
        }
        write!(svg, "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" d=\"{path}\"/>")?;
        let at = LEFT + NAME_WIDTH * (number % NAMES) as f64;
        let line_at = 10.0 + NAME_HEIGHT * (number / NAMES) as f64;
        write!(svg, "<rect x=\"{at}\" y=\"{line_at}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>")?;
        write!(svg, "<text x=\"{}\" y=\"{}\">{}</text>", at + 18.0, line_at + 6.0, escaped(line.name))?;
    }
    Ok(())
}

struct Scale {
    least: f64,
    most: f64,
    is_log: bool,
    from: f64,
    to: f64,
}

impl Scale {
    fn of(axis: Axis<'_>, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let is_log = axis.is_log;
        let shown = values.filter(|value| value.is_finite() && (!is_log || *value > 0.0));
        let (least, most) =
            shown.fold((f64::INFINITY, 0.0), |(least, most), value| (value.min(least), value.max(most)));
        let (least, most) = match (is_log, least.is_finite() && most > 0.0) {
            (_, false) => (if is_log { 0.1 } else { 0.0 }, 1.0),
            (true, true) => {
                (10_f64.powf(least.log10().floor()), 10_f64.powf(most.log10().ceil()).max(least * 10.0))
            }
            (false, true) => (0.0, most * 1.05),
        };
        Self { least, most, is_log, from, to }
    }

    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (!self.is_log || value > 0.0)
    }

    fn at(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value / self.least).ln() / (self.most / self.least).ln()
        } else {
            (value - self.least) / (self.most - self.least)
        };
        self.from + part * (self.to - self.from)
    }

    /// Where the grid has lines: round numbers.
    fn marks(&self) -> Vec<f64> {
        if self.is_log {
            let (first, last) = (self.least.log10().round() as i32, self.most.log10().round() as i32);
            return (first..=last).map(|power| 10_f64.powi(power)).collect();
        }
        let rough = self.most / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough).unwrap_or(10.0) * power;
        (0..=(self.most / step) as usize).map(|at| at as f64 * step).collect()
    }
}

/// A number with as few digits as it needs.
fn short(number: f64) -> String {
    let (number, unit) = match number.abs() {
        1e9.. => (number / 1e9, "G"),
        1e6.. => (number / 1e6, "M"),
        1e4.. => (number / 1e3, "k"),
        _ => (number, ""),
    };
    let text = format!("{number:.6}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Text as HTML and SVG hold it.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
