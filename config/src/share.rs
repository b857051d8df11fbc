//! Parts of a whole.

/// A share in whole percent.
pub(super) fn percent(share: f64) -> usize {
    (share * 100.0).round() as usize
}
