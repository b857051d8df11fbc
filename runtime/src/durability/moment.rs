//! When something was, for a later process to know how long ago that is.
//!
//! Within one boot of the machine the time since the boot tells it exactly, suspended or not, whatever was done to the
//! clock on the wall. Across boots only that clock is left, which may have jumped either way.

use super::encoding::{Reader, Writer};
use crate::boot::boot;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Which boot of the machine; zero where the kernel does not say.
    boot: u64,
    /// Milliseconds since the boot.
    since_boot: u64,
    /// Milliseconds since 1970.
    wall: u64,
}

impl Moment {
    /// Now.
    pub fn now() -> Moment {
        let since_boot = clock_gettime(ClockId::Boottime);
        let since_boot = since_boot.tv_sec as u64 * 1000 + since_boot.tv_nsec as u64 / 1_000_000;
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Moment { boot: boot().map_or(0, |[first, _]| first), since_boot, wall: wall.as_millis() as u64 }
    }

    /// How long before `now` it was; zero where it seems to come after that.
    pub fn age(&self, now: &Moment) -> Duration {
        let same_boot = self.boot == now.boot && self.boot != 0;
        let millis = match same_boot {
            true => now.since_boot.saturating_sub(self.since_boot),
            false => now.wall.saturating_sub(self.wall),
        };
        Duration::from_millis(millis)
    }

    /// For whoever keeps it elsewhere.
    pub fn parts(&self) -> [u64; 3] {
        [self.boot, self.since_boot, self.wall]
    }

    /// As [`parts`](Self::parts).
    pub fn of_parts([boot, since_boot, wall]: [u64; 3]) -> Moment {
        Moment { boot, since_boot, wall }
    }

    /// As bytes.
    pub fn encode(&self, writer: &mut Writer) {
        writer.number(self.boot).number(self.since_boot).number(self.wall);
    }

    /// From these bytes.
    pub fn decode(reader: &mut Reader) -> Option<Moment> {
        Some(Moment { boot: reader.number()?, since_boot: reader.number()?, wall: reader.number()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_a_boot_the_clock_on_the_wall_does_not_matter() {
        let then = Moment { boot: 7, since_boot: 1_000, wall: 1_000_000 };
        for (now, seconds) in [
            (Moment { since_boot: 3_000, wall: 1_002_000, ..then }, 2),
            (Moment { since_boot: 3_000, wall: 0, ..then }, 2),
            (Moment { since_boot: 3_000, wall: u64::MAX, ..then }, 2),
            (Moment { boot: 8, since_boot: 500, wall: 1_060_000 }, 60),
            // The clock has been set back.
            (Moment { boot: 8, since_boot: 500, wall: 900_000 }, 0),
            // The kernel does not say.
            (Moment { boot: 0, since_boot: 0, wall: 1_001_000 }, 1),
        ] {
            assert_eq!(then.age(&now), Duration::from_secs(seconds), "{now:?}");
        }
    }

    #[test]
    fn time_passes() {
        let (first, second) = (Moment::now(), Moment::now());
        assert!(second.since_boot >= first.since_boot && first.since_boot > 0 && first.wall > 0);
        assert!(second.wall >= first.wall && first.boot == second.boot);
        let mut writer = Writer::default();
        first.encode(&mut writer);
        assert_eq!(Moment::decode(&mut Reader::new(writer.finish().into())), Some(first));
    }
}
