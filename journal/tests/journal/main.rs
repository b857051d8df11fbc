//! The journal on a disk that loses, tears and reorders what was not synced, and on a real one.

mod crashes;
mod damage;
mod failures;
mod faulty_disk;
mod ledger;
mod limits;
mod model;
mod on_disk;
mod payloads;
mod random;
mod withdrawal;
