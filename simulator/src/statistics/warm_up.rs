//! What is cut off at the beginning of a run, before it has forgotten that it began empty.
//!
//! The cut is MSER's (K. P. White, Jr., "An Effective Truncation Heuristic for Bias Reduction in Simulation Output",
//! Simulation 69(6), 1997): that after which the marginal standard error of the rest is least. Its batches are the
//! intervals of the run, of which the mean over all replicas is taken first (P. D. Welch, 1983), so that all are cut
//! alike. No more than half is ever cut: where the least is there, the run is too short, and that is said.

/// Where a series is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Intervals that are cut off.
    pub intervals: usize,
    /// Whether the run was too short to tell.
    pub is_too_short: bool,
}

/// Where to cut a series of means by MSER. Intervals without a mean count for nothing.
pub fn mser(series: &[Option<f64>]) -> Cut {
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    let half = series.len() / 2;
    for (at, mean) in series.iter().enumerate().rev() {
        if let Some(mean) = mean {
            count += 1.0;
            sum += mean;
            squares += mean * mean;
        }
        // Five at the least: fewer may be alike by chance.
        if at <= half && count >= 5.0 {
            let error = (squares - sum * sum / count).max(0.0) / (count * count);
            if error <= best.0 {
                best = (error, at);
            }
        }
    }
    Cut { intervals: best.1, is_too_short: best.1 == half && half > 0 && best.0 > 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unlike_the_rest_is_cut_off() {
        let noise = |at: usize| ((at * 7919) % 13) as f64 / 13.0;
        let settled: Vec<_> = (0..100).map(|at| Some(10.0 + noise(at))).collect();
        assert!(mser(&settled).intervals < 10, "{:?}", mser(&settled));
        let ramp = |at: usize| if at < 20 { at as f64 / 2.0 } else { 10.0 };
        let warming: Vec<_> = (0..100).map(|at| Some(ramp(at) + noise(at))).collect();
        let cut = mser(&warming);
        assert!((15..30).contains(&cut.intervals) && !cut.is_too_short, "{cut:?}");
        let rising: Vec<_> = (0..100).map(|at| Some(at as f64)).collect();
        assert!(mser(&rising).is_too_short);
        assert_eq!(mser(&[]), Cut { intervals: 0, is_too_short: false });
    }
}
