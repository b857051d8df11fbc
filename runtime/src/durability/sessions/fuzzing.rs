//! What the fuzz target `records` in `runtime/fuzz` runs: any bytes may be handed over, and nothing here may panic.
//! Built for it and for the tests only, which replay the seeds and whatever was found.

use super::format::{decode, encode};

/// Reads a record of the broker: its kind is the first byte.
///
/// # Panics
///
/// If reading panics, or a record that is read is not these bytes when it is written again.
pub fn records(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    if let Ok(record) = decode(kind, bytes) {
        assert_eq!(encode(&record), (kind, bytes.to_vec()), "{record:?}");
    }
}

#[cfg(test)]
mod tests {
    /// Each line of a file of seeds is a name, a colon and bytes in hexadecimal.
    #[test]
    fn seeds_of_records_are_survived() {
        let seeds = include_str!("../../../fuzz/seeds/records.hex");
        for line in seeds.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, hex) = line.rsplit_once(": ").expect("a seed has a name");
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect(name);
            let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(byte).collect();
            println!("{name}"); // shown if it panics
            assert!(super::decode(bytes[0], &bytes[1..]).is_ok(), "{name} is a record");
            // Cut short anywhere, too, and with each byte another.
            for at in 0..bytes.len() {
                super::records(&bytes[..at]);
                let mut changed = bytes.clone();
                for other in [0, 0xFF, bytes[at] ^ 1, bytes[at] ^ 0x80] {
                    changed[at] = other;
                    super::records(&changed);
                }
            }
        }
    }
}
