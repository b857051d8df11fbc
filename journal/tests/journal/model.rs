//! Any batches, crashes and closings, against what a map of records does.

use proptest::prelude::*;

use crate::faulty_disk::FaultyDisk;
use crate::ledger::{Ledger, User, live, open};
use crate::random::Random;

#[derive(Clone, Debug)]
enum Step {
    Append { groups: usize, seed: u64 },
    Close,
    Kill,
    PowerCut { seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..40_usize, any::<u64>()).prop_map(|(groups, seed)| Step::Append { groups, seed }),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
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
            };
            let opened = open(&left);
            prop_assert!(opened.1.damage.is_empty());
            prop_assert_eq!(live(&opened.0, &opened.1), ledger.live());
            journal = opened.0;
            disk = left;
        }
    }
}
