//! What the fuzz target in `config/fuzz` runs: any bytes may be handed over, and nothing here may panic. Built for it
//! and for the tests only, which replay the seeds and whatever was found.

use super::{ConfigError, Draft};
use std::path::Path;

/// Reads a configuration file of this text, in a folder that is not there.
///
/// # Panics
///
/// If reading panics, a refusal is not one line, or an accepted configuration is another one when it is printed and
/// read again.
pub fn configuration(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match Draft::parse(Path::new("/nonexistent/offload.toml"), text.to_owned()).finish() {
        Ok(finished) => {
            let printed = finished.config.to_commented_toml(&finished.given);
            let again = Draft::parse(Path::new("/elsewhere/offload.toml"), printed.clone()).finish();
            assert_eq!(again.as_ref().ok(), Some(&finished), "{printed}: {again:?}");
        }
        Err(ConfigError::Refused(refusals)) => {
            let told = refusals.to_string();
            assert_eq!(told.lines().count(), refusals.0.len(), "{told}");
        }
        Err(error) => panic!("nothing was to be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    /// Each line of a file of seeds is a name, a colon and bytes in hexadecimal.
    #[test]
    fn seeds_of_configurations_are_survived() {
        let seeds = include_str!("../fuzz/seeds/configuration.hex");
        for line in seeds.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, hex) = line.rsplit_once(": ").expect("a seed has a name");
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect(name);
            let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(byte).collect();
            println!("{name}"); // shown if it panics
            super::configuration(&bytes);
            // Cut short anywhere, too.
            (0..bytes.len()).for_each(|at| super::configuration(&bytes[..at]));
        }
    }
}
