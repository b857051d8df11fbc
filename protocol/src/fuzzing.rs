//! What the fuzz targets in `fuzz/` run: any bytes may be handed over, and nothing here may panic. Built for them and
//! for the tests only, which replay the seeds and whatever was found.

mod answers;
mod names;
mod requests;

pub use self::answers::answers;
pub use self::names::names;
pub use self::requests::requests;
use crate::UserProperties;

/// The most user properties of one input.
const MAX_PROPERTIES: u8 = 3;

/// Takes texts off the front, two for each property: a byte with its length, then its bytes.
fn take_properties(number: u8, input: &mut &[u8]) -> UserProperties {
    (0..number.min(MAX_PROPERTIES)).map(|_| (take_text(input), take_text(input))).collect()
}

/// Takes a text off the front, or what is left of it; what is not UTF-8 is replaced, as no MQTT packet carries it.
fn take_text(input: &mut &[u8]) -> String {
    let Some((&length, rest)) = input.split_first() else { return String::new() };
    let (text, rest) = rest.split_at(rest.len().min(length.into()));
    *input = rest;
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    /// Each line of a file of seeds is a name, a colon and bytes in hexadecimal.
    fn replay(seeds: &str, target: fn(&[u8])) {
        let lines = seeds.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (name, hex) = line.rsplit_once(": ").expect("a seed has a name");
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect(name);
            let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(byte).collect();
            println!("{name}"); // shown if it panics
            target(&bytes);
            // Cut short anywhere, too, and with each byte another.
            for at in 0..bytes.len() {
                target(&bytes[..at]);
                let mut changed = bytes.clone();
                for other in [0, 0x7F, 0xFF, bytes[at] ^ 1, bytes[at] ^ 0x20, bytes[at] ^ 0x80] {
                    changed[at] = other;
                    target(&changed);
                }
            }
        }
    }

    #[test]
    fn seeds_of_requests_are_survived() {
        replay(include_str!("../fuzz/seeds/requests.hex"), super::requests);
    }

    #[test]
    fn seeds_of_answers_are_survived() {
        replay(include_str!("../fuzz/seeds/answers.hex"), super::answers);
    }

    #[test]
    fn seeds_of_names_are_survived() {
        replay(include_str!("../fuzz/seeds/names.hex"), super::names);
    }
}
