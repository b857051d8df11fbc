//! Whether all who got a message have acknowledged it: who has caused the message may want to know.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use parking_lot::Mutex;

/// Is called once every receiver of a message has acknowledged it, and never if one of them does not: because its
/// subscription is at QoS 0, or its session ends before. Called on the task of the receiver's connection, within that
/// task's poll, so it must not block; no lock of the broker is held. It may be dropped while one is.
pub type OnAcknowledged = Box<dyn FnOnce() + Send>;

/// Tells when the last receiver has acknowledged: when the last [`Receipt`] goes, and this.
pub(crate) struct Receipts {
    tracked: Arc<Tracked>,
    is_expected: bool,
}

/// A receiver that is to acknowledge. One that is dropped without having been [given](Self::given) is missing for good.
#[derive(Debug)]
pub(crate) struct Receipt {
    tracked: Arc<Tracked>,
    is_given: bool,
}

struct Tracked {
    is_missing: AtomicBool,
    on_acknowledged: Mutex<Option<OnAcknowledged>>,
}

impl Receipts {
    /// Of a message that nobody has got yet.
    pub fn new(on_acknowledged: OnAcknowledged) -> Self {
        let on_acknowledged = Mutex::new(Some(on_acknowledged));
        let tracked = Arc::new(Tracked { is_missing: AtomicBool::new(false), on_acknowledged });
        Self { tracked, is_expected: false }
    }

    /// One receiver more is to acknowledge it.
    pub fn expect(&mut self) -> Receipt {
        self.is_expected = true;
        Receipt { tracked: self.tracked.clone(), is_given: false }
    }

    /// A receiver has it that will never acknowledge it: there is nothing to give.
    pub fn miss(&mut self) -> Option<Receipt> {
        self.tracked.is_missing.store(true, Relaxed);
        None
    }
}

impl Drop for Receipts {
    fn drop(&mut self) {
        // What nobody got, nobody acknowledges.
        if !self.is_expected {
            self.tracked.is_missing.store(true, Relaxed);
        }
    }
}

impl Receipt {
    /// The receiver has acknowledged. No lock of the broker may be held.
    pub fn given(mut self) {
        self.is_given = true;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.is_given {
            self.tracked.is_missing.store(true, Relaxed);
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        let on_acknowledged = self.on_acknowledged.get_mut().take();
        if !*self.is_missing.get_mut()
            && let Some(on_acknowledged) = on_acknowledged
        {
            on_acknowledged();
        }
    }
}

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracked").field("is_missing", &self.is_missing).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn receipts() -> (Receipts, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let on_acknowledged = Box::new(move || {
            counted.fetch_add(1, Relaxed);
        });
        (Receipts::new(on_acknowledged), calls)
    }

    #[test]
    fn the_last_of_all_receivers_tells() {
        let (mut receipts, calls) = receipts();
        let (first, second) = (receipts.expect(), receipts.expect());
        first.given();
        drop(receipts);
        assert_eq!(calls.load(Relaxed), 0);
        second.given();
        assert_eq!(calls.load(Relaxed), 1);
    }

    #[test]
    fn a_receiver_may_acknowledge_before_all_have_the_message() {
        let (mut receipts, calls) = receipts();
        receipts.expect().given();
        assert_eq!(calls.load(Relaxed), 0);
        drop(receipts);
        assert_eq!(calls.load(Relaxed), 1);
    }

    #[test]
    fn one_that_is_missing_silences_the_others() {
        for missing in 0..3 {
            let (mut receipts, calls) = receipts();
            if missing < 2 {
                let receivers = [receipts.expect(), receipts.expect()];
                for (number, receiver) in receivers.into_iter().enumerate() {
                    if number == missing { drop(receiver) } else { receiver.given() }
                }
            } else {
                receipts.expect().given();
                receipts.miss();
            }
            drop(receipts);
            assert_eq!(calls.load(Relaxed), 0, "{missing}");
        }
        let (receipts, calls) = receipts();
        drop(receipts);
        assert_eq!(calls.load(Relaxed), 0, "nobody got it");
    }
}
