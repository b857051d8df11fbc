//! What an earlier process has left in the journal, until those who have put it there take it.

use offload_journal::Record;
use std::ops::RangeBounds;

/// Records by kind, in the order in which they were put.
#[derive(Default)]
pub struct Recovered(Vec<Record>);

impl Recovered {
    /// The records of this kind.
    pub fn take(&mut self, kind: u8) -> Vec<Record> {
        self.take_range(kind..=kind)
    }

    /// The records of these kinds, in the order in which they were put, whatever their kind.
    pub fn take_range(&mut self, kinds: impl RangeBounds<u8>) -> Vec<Record> {
        self.0.extract_if(.., |record| kinds.contains(&record.kind)).collect()
    }

    /// Whatever nobody has taken stays in the journal.
    pub fn end(self) {
        if !self.0.is_empty() {
            tracing::warn!(
                records = self.0.len(),
                "the journal has records of kinds that this version does not know: they are left alone"
            );
        }
    }
}

impl From<Vec<Record>> for Recovered {
    fn from(records: Vec<Record>) -> Recovered {
        Recovered(records)
    }
}
