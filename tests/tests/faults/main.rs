//! Faults, injected: the machine, its clock, its disk, the broker and the gateway's own children fail on purpose.
//!
//! Each fault has a defined outcome, which `docs/reliability.md` has as a table ("Faults") and a test here asserts: an
//! error to the client or a later answer, never silence beyond its timeout; log and status say what is wrong and what
//! to do; and when the fault is over, the gateway serves as before.

mod children;
mod clock;
mod disk;
mod external_broker;
mod injected;
mod memory;
mod open_files;
mod partition;
mod processes;
