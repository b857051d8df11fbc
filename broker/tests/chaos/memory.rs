//! The resident size of the broker's process.

use std::{fmt, fs, time::Duration};

/// Between two looks at it.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// The last third of a run may take this many percent more than the second...
const GROWTH_PERCENT: u64 = 20;
/// ...and as many bytes besides, which a short run may need to reach its height.
const GROWTH_BYTES: u64 = 24 * 1024 * 1024;

pub struct Memory {
    file: String,
    /// Bytes.
    samples: Vec<u64>,
}

impl Memory {
    pub fn of(process: u32) -> Self {
        Self { file: format!("/proc/{process}/status"), samples: Vec::new() }
    }

    pub fn sample(&mut self) {
        let status = fs::read_to_string(&self.file).expect("the broker runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        self.samples.push(kilobytes * 1024);
    }

    /// Medians of the three thirds.
    fn thirds(&self) -> [u64; 3] {
        let third = self.samples.len() / 3;
        assert!(third > 0, "too short a run");
        [0, 1, 2].map(|at| {
            let mut samples = self.samples[at * third..(at + 1) * third].to_vec();
            samples.sort_unstable();
            samples[third / 2]
        })
    }

    /// The first third is for warming up.
    pub fn assert_no_growth(&self) {
        let [_, second, last] = self.thirds();
        let most = second + second * GROWTH_PERCENT / 100 + GROWTH_BYTES;
        assert!(last <= most, "memory grows: {self}");
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes / (1024 * 1024);
        let [first, second, last] = self.thirds().map(megabytes);
        let peak = megabytes(self.samples.iter().copied().max().unwrap_or(0));
        write!(f, "{first}, {second} and {last} MB (medians of the thirds of the run), {peak} MB at most")
    }
}
