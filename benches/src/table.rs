//! What a suite measures: samples of figures, round by round, and what they come to.

use crate::load::Measured;
use crate::spread::Spread;
use serde::Serialize;

/// One column.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    /// With its unit.
    pub name: &'static str,
    /// Shown after the point.
    pub decimals: usize,
    /// Whether two contenders' values are divided by each other.
    pub compared: bool,
    /// Whether it has a plot.
    pub plotted: bool,
}

impl Figure {
    /// A figure of which ratios are given.
    pub const fn compared(name: &'static str, decimals: usize) -> Figure {
        Figure { name, decimals, compared: true, plotted: false }
    }

    /// A figure that stands for itself.
    pub const fn plain(name: &'static str, decimals: usize) -> Figure {
        Figure { name, decimals, compared: false, plotted: false }
    }

    /// The same with a plot.
    pub const fn plotted(self) -> Figure {
        Figure { plotted: true, ..self }
    }
}

/// What a load measures; [`of_load`] has the values.
pub const LOAD_FIGURES: [Figure; 4] = [
    Figure::compared("requests/s", 0).plotted(),
    Figure::compared("p50 µs", 0),
    Figure::compared("p99 µs", 0).plotted(),
    Figure::plain(LOAD_PERCENT, 0),
];

/// The share of a core that the load takes.
const LOAD_PERCENT: &str = "load CPU %";

/// From here on a load counts as what bounds the figures.
const LOAD_BOUND_PERCENT: f64 = 85.0;

/// In the order of [`LOAD_FIGURES`].
pub fn of_load(measured: &Measured) -> Vec<f64> {
    vec![
        measured.requests_per_second(),
        measured.latency_us(0.5),
        measured.latency_us(0.99),
        measured.load_percent(),
    ]
}

/// One turn of one contender.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub round: u32,
    pub setting: String,
    pub contender: String,
    /// In the order of the table's figures.
    pub values: Vec<f64>,
}

/// All samples that are compared with each other.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Names its plots.
    pub name: &'static str,
    pub title: String,
    pub figures: Vec<Figure>,
    /// What is divided by what: contenders of one setting in the same round.
    #[serde(skip)]
    pub ratios: Vec<(String, String)>,
    pub samples: Vec<Sample>,
    /// What a reader must know beside the figures.
    pub notes: Vec<String>,
}

/// One contender, or one ratio of two, in one setting.
#[derive(Debug, PartialEq, Serialize)]
pub struct Row {
    pub setting: String,
    pub contender: String,
    /// In the order of the figures; for ratios of those that are compared.
    pub spreads: Vec<Spread>,
}

impl Table {
    /// A table without samples.
    pub fn new(name: &'static str, title: impl Into<String>, figures: &[Figure]) -> Table {
        let (samples, ratios, notes) = Default::default();
        Table { name, title: title.into(), figures: figures.to_vec(), ratios, samples, notes }
    }

    /// Adds what is divided by what.
    pub fn compare(mut self, pairs: &[(&str, &str)]) -> Table {
        self.ratios.extend(pairs.iter().map(|(upper, lower)| (upper.to_string(), lower.to_string())));
        self
    }

    /// Takes one turn's values.
    pub fn add(&mut self, round: u32, setting: &str, contender: &str, values: Vec<f64>) {
        assert_eq!(values.len(), self.figures.len(), "{contender}: a value for each figure");
        self.samples.push(Sample { round, setting: setting.into(), contender: contender.into(), values });
    }

    /// Settings and contenders, in the order in which they came first.
    pub fn rows(&self) -> Vec<Row> {
        let mut keys: Vec<(&str, &str)> = Vec::new();
        for Sample { setting, contender, .. } in &self.samples {
            if !keys.contains(&(setting, contender)) {
                keys.push((setting, contender));
            }
        }
        // A setting's contenders side by side, also where each came first in another round.
        let settings = self.settings();
        keys.sort_by_key(|(setting, _)| settings.iter().position(|known| known == setting));
        let row = |(setting, contender): (&str, &str)| {
            let of = |figure: usize| {
                Spread::of(self.samples_of(setting, contender).map(|sample| sample.values[figure]))
            };
            let spreads = (0..self.figures.len()).map(of).collect::<Option<_>>()?;
            Some(Row { setting: setting.into(), contender: contender.into(), spreads })
        };
        keys.into_iter().filter_map(row).collect()
    }

    /// Ratios, each of two turns in the same round, not of medians: what disturbs a round disturbs both.
    pub fn ratio_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for setting in self.settings() {
            for (upper, lower) in &self.ratios {
                let pairs: Vec<(&Sample, &Sample)> = self
                    .samples_of(setting, upper)
                    .filter_map(|above| {
                        let mut others = self.samples_of(setting, lower);
                        Some((above, others.find(|below| below.round == above.round)?))
                    })
                    .collect();
                let compared = (0..self.figures.len()).filter(|&figure| self.figures[figure].compared);
                let spreads = compared.map(|figure| {
                    Spread::of(pairs.iter().map(|(above, below)| above.values[figure] / below.values[figure]))
                });
                if let Some(spreads) = spreads.collect() {
                    rows.push(Row {
                        setting: setting.into(),
                        contender: format!("{upper} / {lower}"),
                        spreads,
                    });
                }
            }
        }
        rows
    }

    /// All settings, in the order in which they came first.
    pub fn settings(&self) -> Vec<&str> {
        let mut settings: Vec<&str> = Vec::new();
        for sample in &self.samples {
            if !settings.contains(&sample.setting.as_str()) {
                settings.push(&sample.setting);
            }
        }
        settings
    }

    /// Says so where the load, and not the server, may have been what bounds a figure.
    pub fn warn_of_the_load(&mut self) {
        let Some(place) = self.figures.iter().position(|figure| figure.name == LOAD_PERCENT) else { return };
        for row in self.rows() {
            if row.spreads[place].median > LOAD_BOUND_PERCENT {
                let Row { setting, contender, spreads } = row;
                let percent = spreads[place].median;
                self.notes.push(format!(
                    "{setting}, {contender}: the load itself took {percent:.0} % of a core and may be what is measured."
                ));
            }
        }
    }

    fn samples_of<'a>(&'a self, setting: &'a str, contender: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.setting == setting && sample.contender == contender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: [Figure; 2] = [Figure::compared("requests/s", 0), Figure::plain(LOAD_PERCENT, 0)];

    #[test]
    fn ratios_are_those_of_one_round() {
        let mut table = Table::new("test", "", &FIGURES).compare(&[("a", "b"), ("a", "absent")]);
        // A machine twice as fast in the second round, in which b comes first.
        table.add(0, "s", "a", vec![10.0, 1.0]);
        table.add(0, "s", "b", vec![20.0, 1.0]);
        table.add(1, "s", "b", vec![40.0, 1.0]);
        table.add(1, "s", "a", vec![20.0, 1.0]);
        let rows = table.rows();
        assert_eq!(rows[0].contender, "a");
        assert_eq!(rows[0].spreads[0], Spread { median: 15.0, min: 10.0, max: 20.0 });
        let half = Spread { median: 0.5, min: 0.5, max: 0.5 };
        let ratio = Row { setting: "s".into(), contender: "a / b".into(), spreads: vec![half] };
        assert_eq!(table.ratio_rows(), [ratio]);
    }

    #[test]
    fn a_load_that_takes_its_whole_core_is_told() {
        let mut table = Table::new("test", "", &FIGURES);
        table.add(0, "s", "idle", vec![1.0, LOAD_BOUND_PERCENT - 1.0]);
        table.add(0, "s", "busy", vec![1.0, LOAD_BOUND_PERCENT + 1.0]);
        table.warn_of_the_load();
        assert_eq!(table.notes.len(), 1);
        assert!(table.notes[0].contains("busy"), "{:?}", table.notes);
    }
}
