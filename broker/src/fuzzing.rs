//! What the fuzz targets in `fuzz/` run: any bytes may be handed over, and nothing here may panic. Built for them and
//! for the tests only, which replay the seeds and whatever was found.

mod connections;
mod packets;

pub use self::{connections::connections, packets::packets};

#[cfg(test)]
mod tests {
    /// Each line of a file of seeds is a name, a colon and bytes in hexadecimal.
    fn replay(seeds: &str, target: fn(&[u8])) {
        let lines = seeds.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let (name, hex) = line.rsplit_once(": ").expect("a seed has a name");
            let digits: Vec<u8> = hex.split_whitespace().flat_map(str::bytes).collect();
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).expect(name);
            let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
            println!("{name}"); // shown if it panics
            target(&bytes);
            // Cut short anywhere, too.
            for end in 0..bytes.len() {
                target(&bytes[..end]);
            }
        }
    }

    #[test]
    fn seeds_of_packets_are_survived() {
        replay(include_str!("../fuzz/seeds/packets.hex"), super::packets);
    }

    #[test]
    fn seeds_of_connections_are_survived() {
        replay(include_str!("../fuzz/seeds/connections.hex"), super::connections);
    }
}
