//! Modules as an aligned table.

use std::time::{Duration, SystemTime};

use offload_client::StoredModule;

/// Columns of a digest.
const DIGEST: usize = "sha256:".len() + 64;

/// The table: digest, size, and when it was used last.
pub fn table(modules: &[StoredModule]) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    table_at(modules, now)
}

/// A size in KiB, none smaller than one.
pub fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1 << 10))
}

fn table_at(modules: &[StoredModule], now: Duration) -> String {
    let sizes: Vec<String> = modules.iter().map(|module| kib(module.bytes)).collect();
    let width = sizes.iter().map(String::len).chain(["SIZE".len()]).max().unwrap_or_default();
    let mut table = format!("{:DIGEST$}  {:>width$}  LAST USED\n", "DIGEST", "SIZE");
    for (StoredModule { digest, last_used, .. }, size) in modules.iter().zip(sizes) {
        let age = now.saturating_sub(Duration::from_millis(*last_used));
        table += &format!("{digest}  {size:>width$}  {}\n", ago(age));
    }
    table
}

/// An age in whole days, hours, minutes or seconds, whichever is the largest that it has one of.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(24 * 60 * 60, "d"), (60 * 60, "h"), (60, "min"), (1, "s")];
    let unit = units.iter().find(|(length, _)| seconds >= *length);
    // The gateway's clock may be ahead of this one's.
    unit.map_or_else(|| "now".to_owned(), |(length, name)| format!("{} {name} ago", seconds / length))
}

#[cfg(test)]
mod tests {
    use offload_client::Digest;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let now = Duration::from_secs(1_000_000);
        let module = |byte: u8, bytes: u64, age: u64| StoredModule {
            digest: Digest([byte; 32]),
            bytes,
            last_used: (1_000_000 - age) * 1000,
        };
        let [a, b, c] = ["aa", "bb", "cc"].map(|byte| byte.repeat(32));
        let modules = [module(0xaa, 1, 0), module(0xbb, 1 << 20, 59), module(0xcc, 1025, 3 * 24 * 3600)];
        let heading = format!("DIGEST{}", " ".repeat(DIGEST - 6));
        let expected = format!(
            "{heading}      SIZE  LAST USED\n\
             sha256:{a}     1 KiB  now\n\
             sha256:{b}  1024 KiB  59 s ago\n\
             sha256:{c}     2 KiB  3 d ago\n"
        );
        assert_eq!(table_at(&modules, now), expected);
        assert_eq!(table_at(&[], now), format!("{heading}  SIZE  LAST USED\n"));
        let later = StoredModule { last_used: u64::MAX, ..module(0xaa, 1, 0) };
        assert!(table_at(&[later], now).ends_with("  now\n"));
        for (seconds, told) in [(60, "1 min ago"), (7199, "1 h ago"), (172_800, "2 d ago")] {
            assert_eq!(ago(Duration::from_secs(seconds)), told);
        }
    }
}
