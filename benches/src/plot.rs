//! Plots: bars of the medians, with a line from the lowest to the highest of the rounds.

use crate::table::{Row, Table};
use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// Pixels.
const HEIGHT: u32 = 460;
const LEAST_WIDTH: u32 = 720;
const BAR_WIDTH: u32 = 16;
const LEGEND_WIDTH: u32 = 220;

/// Part of a setting's width that is left empty.
const GAP: f64 = 0.15;

/// Written in whatever font the reader has.
const FONT: &str = "sans-serif";

/// Writes `<folder>/<table>-<figure>.svg` for each figure that has a plot.
pub fn write(table: &Table, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let rows = table.rows();
    for (place, figure) in table.figures.iter().enumerate().filter(|(_, figure)| figure.plotted) {
        let name = figure.name.replace('µ', "u");
        let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let slug = words.collect::<Vec<_>>().join("-").to_lowercase();
        let file = folder.join(format!("{}-{slug}.svg", table.name));
        let settings = table.settings();
        let bars = (rows.len() + settings.len()) as u32;
        let size = (LEAST_WIDTH.max(bars * BAR_WIDTH * 2) + LEGEND_WIDTH, HEIGHT);
        let area = SVGBackend::new(&file, size).into_drawing_area();
        let title = format!("{}: {}", table.title.replace('`', ""), figure.name);
        draw(&area, &title, &settings, &rows, place)
            .and_then(|()| area.present().map_err(|error| anyhow!("{error}")))
            .with_context(|| format!("cannot draw {}", file.display()))?;
    }
    Ok(())
}

fn draw(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    settings: &[&str],
    rows: &[Row],
    place: usize,
) -> Result<()> {
    let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{error}");
    let mut contenders: Vec<&str> = Vec::new();
    for row in rows {
        if !contenders.contains(&row.contender.as_str()) {
            contenders.push(&row.contender);
        }
    }
    // A logarithmic axis has no zero.
    let positive = || rows.iter().map(|row| row.spreads[place]).filter(|spread| spread.min > 0.0);
    let least = positive().map(|spread| spread.min).fold(f64::INFINITY, f64::min) / 2.0;
    let most = positive().map(|spread| spread.max).fold(0.0, f64::max) * 1.5;
    if least >= most {
        return Ok(());
    }
    // The legend stands right of the last setting.
    let pixels = area.dim_in_pixel().0;
    let end = settings.len() as f64 / (1.0 - f64::from(LEGEND_WIDTH) / f64::from(pixels));
    area.fill(&WHITE).map_err(failed)?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..end, (least..most).log_scale())
        .map_err(failed)?;
    let number = |value: &f64| if *value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    chart.configure_mesh().disable_x_mesh().x_labels(0).y_label_formatter(&number).draw().map_err(failed)?;
    let width = (1.0 - GAP) / contenders.len() as f64;
    for (index, contender) in contenders.iter().enumerate() {
        let colour = Palette99::pick(index).to_rgba();
        let of_contender =
            rows.iter().filter(|row| row.contender == *contender && row.spreads[place].min > 0.0);
        let bars: Vec<_> = of_contender
            .filter_map(|row| {
                let setting = settings.iter().position(|setting| *setting == row.setting)?;
                Some((setting as f64 + GAP / 2.0 + index as f64 * width, row.spreads[place]))
            })
            .collect();
        let bar = |&(left, spread): &(f64, crate::spread::Spread)| {
            Rectangle::new([(left, least), (left + width * 0.9, spread.median)], colour.filled())
        };
        chart
            .draw_series(bars.iter().map(bar))
            .map_err(failed)?
            .label(*contender)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
        let line = |&(left, spread): &(f64, crate::spread::Spread)| {
            let middle = left + width * 0.45;
            PathElement::new([(middle, spread.min), (middle, spread.max)], BLACK)
        };
        chart.draw_series(bars.iter().map(line)).map_err(failed)?;
    }
    let centred = (FONT, 12).into_text_style(area).pos(Pos::new(HPos::Center, VPos::Top));
    for (index, setting) in settings.iter().enumerate() {
        let (x, y) = chart.plotting_area().map_coordinate(&(index as f64 + 0.5, least));
        area.draw(&Text::new(setting.replace('`', ""), (x, y + 8), centred.clone())).map_err(failed)?;
    }
    chart
        .configure_series_labels()
        .label_font((FONT, 12))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .position(SeriesLabelPosition::UpperRight)
        .draw()
        .map_err(failed)?;
    Ok(())
}
