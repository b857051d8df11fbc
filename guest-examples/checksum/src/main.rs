//! CRC-32 of its input, as `gzip` and Ethernet have it: eight hexadecimal digits.

use std::io::{self, Read};

/// The polynomial, its bits in reverse.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// Bytes read at a time.
const BUFFER: usize = 16 << 10;

fn main() -> io::Result<()> {
    let table = table();
    let mut input = io::stdin().lock();
    let mut buffer = vec![0; BUFFER];
    let mut checksum = !0u32;
    loop {
        let read = input.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        for byte in &buffer[..read] {
            let low = (checksum ^ u32::from(*byte)) & 0xFF;
            checksum = table[low as usize] ^ (checksum >> 8);
        }
    }
    println!("{:08x}", !checksum);
    Ok(())
}

/// What eight steps do to each value of a byte.
fn table() -> [u32; 256] {
    let mut table = [0; 256];
    for (value, entry) in (0u32..).zip(&mut table) {
        *entry = (0..8).fold(value, |rest, _| (rest >> 1) ^ if rest & 1 == 1 { POLYNOMIAL } else { 0 });
    }
    table
}
