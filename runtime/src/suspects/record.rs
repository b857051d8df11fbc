//! How suspects are written: one record a slot, eight words, of which the last one decides.
//!
//! The file is shared memory. The kernel keeps what a process has stored there however the process ends, and nothing of
//! what it had still to store: a record can be cut off between any two words. So the last word holds the state and a
//! checksum of all, and is stored last: until then the slot is free, or still holds its old record.

use crate::fingerprint::Fingerprint;

/// Words of a slot: 64 bytes, a line of the cache.
pub const WORDS: usize = 8;
/// The word that decides.
const SEAL: usize = WORDS - 1;
/// The word with the time.
const SINCE: usize = 4;

/// One slot.
pub type Words = [u64; WORDS];

/// A slot without a record. Only its seal counts.
pub const FREE: Words = [0; WORDS];

/// What is known of one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of what is executed.
    pub fingerprint: Fingerprint,
    /// When it became suspect, in seconds of Unix time; 0 while it is not.
    pub since: u64,
    /// What has become of it.
    pub state: State,
}

/// What has become of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is under way, perhaps beside others.
    Running,
    /// It is under way, and nothing else is. It has crashed the process before.
    RunningAlone {
        /// Crashes while nothing else ran.
        crashes: u8,
    },
    /// The process crashed while it ran.
    Suspect {
        /// Crashes while nothing else ran.
        crashes: u8,
    },
}

/// Words that nobody has written like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl Record {
    /// The words of a slot that holds it.
    pub fn encode(&self) -> Words {
        let mut words = FREE;
        for (word, bytes) in words.iter_mut().zip(self.fingerprint.0.chunks_exact(size_of::<u64>())) {
            *word = u64::from_ne_bytes(bytes.try_into().expect("a chunk has as many bytes as a word"));
        }
        words[SINCE] = self.since;
        let (kind, crashes) = match self.state {
            State::Running => (1, 0),
            State::RunningAlone { crashes } => (2, crashes),
            State::Suspect { crashes } => (3, crashes),
        };
        seal(words, u32::from_le_bytes([kind, crashes, 0, 0]))
    }

    /// What a slot holds.
    ///
    /// # Errors
    ///
    /// [`Damaged`] for words that no record has.
    pub fn decode(words: &Words) -> Result<Option<Record>, Damaged> {
        let Some(value) = unseal(words)? else { return Ok(None) };
        let state = match value.to_le_bytes() {
            [1, 0, 0, 0] => State::Running,
            [2, crashes, 0, 0] => State::RunningAlone { crashes },
            [3, crashes, 0, 0] => State::Suspect { crashes },
            _ => return Err(Damaged),
        };
        let mut fingerprint = Fingerprint([0; 32]);
        for (bytes, word) in fingerprint.0.chunks_exact_mut(size_of::<u64>()).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Ok(Some(Record { fingerprint, since: words[SINCE], state }))
    }
}

/// Puts a value and the checksum into the last word, the value in its lower half.
pub fn seal(mut words: Words, value: u32) -> Words {
    words[SEAL] = u64::from(checksum(&words, value)) << 32 | u64::from(value);
    words
}

/// The value in the last word, `None` for a slot that is free.
///
/// # Errors
///
/// [`Damaged`] when the checksum is another.
pub fn unseal(words: &Words) -> Result<Option<u32>, Damaged> {
    let [.., sealed] = *words;
    let value = sealed as u32;
    match (sealed, (sealed >> 32) as u32 == checksum(words, value)) {
        (0, _) => Ok(None),
        (_, true) => Ok(Some(value)),
        (_, false) => Err(Damaged),
    }
}

/// The stores, in order, that make `new` of the slot that holds `old`: cut off after any of them it holds either of the
/// two, or nothing. Only the last word changes where the rest stays as it is.
pub fn stores(old: &Words, new: &Words) -> impl Iterator<Item = (usize, u64)> {
    let body_changes = new[SEAL] != 0 && old[..SEAL] != new[..SEAL];
    let clear = (body_changes && old[SEAL] != 0).then_some((SEAL, 0));
    let body = new[..SEAL].iter().copied().enumerate().filter(move |_| body_changes);
    clear.into_iter().chain(body).chain([(SEAL, new[SEAL])])
}

/// Depends on each bit of the first seven words and of the value.
fn checksum(words: &Words, value: u32) -> u32 {
    let body = words[..SEAL].iter().fold(u64::from(value), |sum, word| mix(sum ^ word));
    (body >> 32) as u32
}

/// The finalizer of SplitMix64: a bijection in which each bit of the input changes half of the output.
fn mix(mut word: u64) -> u64 {
    // Zero would stay zero.
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u8, state: State) -> Record {
        let since = if state == State::Running { 0 } else { 1_800_000_000 };
        Record { fingerprint: Fingerprint(std::array::from_fn(|at| number ^ at as u8)), since, state }
    }

    fn records() -> Vec<Record> {
        let states = [
            State::Running,
            State::RunningAlone { crashes: 0 },
            State::RunningAlone { crashes: 1 },
            State::Suspect { crashes: 0 },
            State::Suspect { crashes: 255 },
        ];
        states.into_iter().flat_map(|state| [record(7, state), record(8, state)]).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for record in records() {
            assert_eq!(Record::decode(&record.encode()), Ok(Some(record)));
        }
        assert_eq!(Record::decode(&FREE), Ok(None));
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        for record in records() {
            for bit in 0..WORDS * 64 {
                let mut words = record.encode();
                words[bit / 64] ^= 1 << (bit % 64);
                assert_eq!(Record::decode(&words), Err(Damaged), "bit {bit} of {record:?}");
            }
        }
        for bit in 0..64 {
            let mut words = FREE;
            words[SEAL] ^= 1 << bit;
            assert_eq!(Record::decode(&words), Err(Damaged), "bit {bit} of a free slot");
        }
    }

    #[test]
    fn a_process_that_ends_between_two_words_leaves_the_old_record_or_the_new_one_or_none() {
        let slots: Vec<Option<Record>> = records().into_iter().map(Some).chain([None]).collect();
        let encoded = |record: &Option<Record>| record.as_ref().map_or(FREE, Record::encode);
        for old in &slots {
            for new in &slots {
                // What a record that was there before has left.
                let mut words = record(9, State::Running).encode();
                for (at, word) in stores(&words.clone(), &FREE).chain(stores(&FREE, &encoded(old))) {
                    words[at] = word;
                }
                let before = words;
                for (at, word) in stores(&before, &encoded(new)) {
                    let found = Record::decode(&words).unwrap_or_else(|_| panic!("{old:?} to {new:?}"));
                    assert!(found.is_none() || found == *old, "{old:?} to {new:?}: {found:?}");
                    words[at] = word;
                }
                assert_eq!(Record::decode(&words), Ok(*new));
            }
        }
    }

    #[test]
    fn a_count_of_crashes_is_changed_by_one_store_so_it_is_never_lost() {
        let (suspect, alone) = (State::Suspect { crashes: 1 }, State::RunningAlone { crashes: 1 });
        let (old, new) = (record(1, suspect).encode(), record(1, alone).encode());
        assert_eq!(stores(&old, &new).count(), 1);
    }
}
