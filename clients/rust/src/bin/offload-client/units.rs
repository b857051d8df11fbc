//! Sizes and durations as people write them.

use std::time::Duration;

/// Reads `500ms`, `2s`, `5m` or `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        _ => return Err("expected a number with ms, s, m or h, as in `500ms` or `2s`".to_owned()),
    };
    times(number, milliseconds).map(Duration::from_millis)
}

/// Reads `64MiB`, `64MB` or `67108864` as bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let bytes = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => {
            return Err(
                "expected bytes, or a number with KiB, MiB, GiB, kB, MB or GB, as in `64MiB`".to_owned()
            );
        }
    };
    times(number, bytes)
}

fn number_and_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn times(number: &str, unit: u64) -> Result<u64, String> {
    if number.is_empty() {
        return Err("expected a whole number before the unit".to_owned());
    }
    let number = number.parse::<u64>().ok();
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("2s", 2000), ("0s", 0), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for text in
            ["", "2", "s", "1.5s", "-1s", "2 s", "2sec", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("67108864", 67_108_864),
            ("64MiB", 67_108_864),
            ("64MB", 64_000_000),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "MiB", "64Mb", "64 MiB", "-1", "1.5GiB", "18446744073709551615KiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
