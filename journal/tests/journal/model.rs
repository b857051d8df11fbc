//! Any batches, crashes, closings, failures and full disks, against what a map of records does.

use proptest::prelude::*;

use offload_journal::Health;

use crate::faulty_disk::{Faults, FaultyDisk};
use crate::ledger::{Ledger, User, live, open};
use crate::random::Random;

#[derive(Clone, Debug)]
enum Step {
    Append {
        groups: usize,
        seed: u64,
    },
    Close,
    Kill,
    PowerCut {
        seed: u64,
    },
    /// A call fails while batches are appended, and the power goes after that.
    Failure {
        after: u64,
        groups: usize,
        seed: u64,
    },
    /// Batches are appended while the disk has no room for more than it has.
    FullDisk {
        groups: usize,
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40_usize, any::<u64>()).prop_map(|(groups, seed)| Step::Append { groups, seed }),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
        1 => (0..40_u64, 1..40_usize, any::<u64>())
            .prop_map(|(after, groups, seed)| Step::Failure { after, groups, seed }),
        1 => (1..40_usize, any::<u64>()).prop_map(|(groups, seed)| Step::FullDisk { groups, seed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_holds_what_a_map_of_its_records_does(steps in proptest::collection::vec(step(), 1..12)) {
        let mut disk = FaultyDisk::default();
        let mut ledger = Ledger::default();
        let (mut journal, _) = open(&disk);
        for step in steps {
            let left = match step {
                Step::Append { groups, seed } => {
                    let random = Random::new(seed);
                    User { journal: &journal, disk: &disk, ledger: &mut ledger, random }.run(groups);
                    prop_assert_eq!(ledger.completed, ledger.batches());
                    prop_assert_eq!(journal.stats().records, ledger.live().len() as u64);
                    continue;
                }
                Step::Close => {
                    journal.close().unwrap();
                    disk.clone()
                }
                Step::Kill => disk.after_kill(),
                Step::PowerCut { seed } => disk.after_power_cut(seed),
                Step::Failure { after, groups, seed } => {
                    disk.set(Faults { error_at: Some(disk.calls() + after), ..Faults::default() });
                    let random = Random::new(seed);
                    User { journal: &journal, disk: &disk, ledger: &mut ledger, random }.run(groups);
                    drop(journal);
                    let left = disk.after_power_cut(seed);
                    // Of what was not completed any part may be there, as far as it goes.
                    let (opened, recovery) = open(&left);
                    prop_assert!(recovery.damage.is_empty());
                    prop_assert_eq!(ledger.judge(&live(&opened, &recovery)), Ok(()));
                    drop(opened);
                    left
                }
                Step::FullDisk { groups, seed } => {
                    disk.set(Faults { capacity: Some(disk.bytes()), ..Faults::default() });
                    let random = Random::new(seed);
                    User { journal: &journal, disk: &disk, ledger: &mut ledger, random }.run(groups);
                    disk.set(Faults::default());
                    prop_assert!(matches!(journal.health(), Health::Sound), "a full disk is no failure");
                    continue;
                }
            };
            let (opened, recovery) = open(&left);
            prop_assert!(recovery.damage.is_empty());
            prop_assert_eq!(live(&opened, &recovery), ledger.live());
            (journal, disk) = (opened, left);
        }
    }
}
