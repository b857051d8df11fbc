//! Which boot of the machine this is: what an earlier process knew of time and of crashes holds within one.

use crate::fingerprint::{Fingerprint, Fingerprinter};
use std::sync::LazyLock;

/// Where Linux names the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What tells one boot from the next.
pub type Boot = [u64; 2];

static BOOT: LazyLock<Option<Boot>> = LazyLock::new(|| {
    let id = std::fs::read(BOOT_ID).ok()?;
    let Fingerprint(print) = Fingerprinter::new("boot").part(&id).finish();
    let (words, _) = print.as_chunks::<{ size_of::<u64>() }>();
    Some([0, 1].map(|word| u64::from_ne_bytes(words[word])))
});

/// This boot; `None` where the kernel does not say.
pub fn boot() -> Option<Boot> {
    *BOOT
}
