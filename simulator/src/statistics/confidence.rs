//! How sure a mean over replicas is: Student's t distribution, since there are few of them.

use serde_json::{Value, json};

/// The 97.5 % quantiles of Student's t distribution, by degrees of freedom from 1.
const T_QUANTILES: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// A mean over replicas, and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean; no number (NaN) where there is nothing to take a mean of.
    pub mean: f64,
    /// Half the interval's width; `None` where one replica says nothing of others.
    pub half_width: Option<f64>,
}

impl Estimate {
    /// Of a number of each replica.
    pub fn of(numbers: &[f64]) -> Self {
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let half_width =
            (numbers.len() > 1).then(|| t_quantile(numbers.len() - 1) * (variance / count).sqrt());
        Self { mean, half_width }
    }

    /// Whether the interval holds this; nothing is known without an interval.
    pub fn holds(&self, number: f64) -> bool {
        self.half_width.is_some_and(|half| (number - self.mean).abs() <= half)
    }

    /// In another unit.
    pub fn scaled(self, factor: f64) -> Self {
        Self { mean: self.mean * factor, half_width: self.half_width.map(|half| half * factor) }
    }

    /// For a report.
    pub fn json(&self) -> Value {
        json!({ "mean": self.mean, "half_width": self.half_width })
    }
}

/// The 97.5 % quantile with this many degrees of freedom, of which there is one at least. Beyond the table by E. A.
/// Cornish and R. A. Fisher's expansion (1938), to four digits.
fn t_quantile(degrees: usize) -> f64 {
    const NORMAL: f64 = 1.959_964;
    match T_QUANTILES.get(degrees - 1) {
        Some(quantile) => *quantile,
        None => {
            let degrees = degrees as f64;
            let first = (NORMAL.powi(3) + NORMAL) / 4.0;
            let second = (5.0 * NORMAL.powi(5) + 16.0 * NORMAL.powi(3) + 3.0 * NORMAL) / 96.0;
            NORMAL + first / degrees + second / (degrees * degrees)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_that_of_the_textbook() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(estimate.mean, 3.0);
        // 2.776 × √(2.5 / 5).
        assert!((estimate.half_width.unwrap() - 1.9629).abs() < 1e-3, "{estimate:?}");
        assert!(estimate.holds(4.9) && !estimate.holds(5.0));
        assert_eq!(Estimate::of(&[1.0]), Estimate { mean: 1.0, half_width: None });
        assert!(Estimate::of(&[]).mean.is_nan() && Estimate::of(&[]).json()["mean"].is_null());
        assert!((t_quantile(60) - 2.000).abs() < 2e-3 && (t_quantile(31) - 2.040).abs() < 2e-3);
    }
}
