//! A gateway's disk: one sync at a time, and all that comes while one runs has the next one together (group commit: J.
//! Gray and A. Reuter, "Transaction Processing", 1993, section 9.4).

use crate::clock::Nanos;

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// When the sync that runs is done, and the one after that if there is one.
    done: Nanos,
    next: Option<Nanos>,
    /// How many times as long a sync takes.
    pub slowness: f64,
}

impl Disk {
    /// Nothing is written.
    pub fn new() -> Self {
        Self { done: 0, next: None, slowness: 1.0 }
    }

    /// When what is written now is safe; `sync` is how long a sync takes that begins for it.
    pub fn write(&mut self, sync: Nanos, now: Nanos) -> Nanos {
        let sync = (sync as f64 * self.slowness) as Nanos;
        if let Some(next) = self.next.filter(|_| self.done <= now) {
            (self.done, self.next) = (next, None);
        }
        if self.done <= now {
            self.done = now + sync;
            return self.done;
        }
        *self.next.get_or_insert(self.done + sync)
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_during_a_sync_has_the_next_one_together() {
        let mut disk = Disk::new();
        let safe: Vec<_> = [0, 1, 9, 10, 15, 40].map(|now| disk.write(10, now)).into();
        assert_eq!(safe, [10, 20, 20, 30, 30, 50]);
        disk.slowness = 3.0;
        assert_eq!(disk.write(10, 100), 130);
    }
}
