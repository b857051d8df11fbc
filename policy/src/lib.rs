//! The gateway's decisions as plain state machines: who is let in, who is next, who may hold how much, what goes when
//! there is no room, and when to try again.
//!
//! Nothing here has a clock, a socket, a thread or a log. Time comes in as a parameter, answers go out as values, and
//! the same calls in the same order give the same results, so that three drivers can share the code:
//!
//! - the **runtime** passes the time since its start and holds what is shared behind locks;
//! - a **simulator** passes virtual time, and runs fleets of gateways in one thread;
//! - **tests** pass numbers from a table.
//!
//! # The way of a request
//!
//! The [`Dispatcher`] is the scheduler as a whole, and its documentation runs one in virtual time.
//!
//! 1. [`Dispatcher::admit`] counts a request as waiting, or says `busy` and after how long to try again
//!    ([`Admission`]). It counts as waiting, once, whatever it then waits for.
//! 2. If it must be compiled, or built and run in a sandbox, it gets a permit for that ([`Permits`]).
//! 3. [`Dispatcher::submit`] puts what can run into the queue ([`FairQueue`]).
//! 4. A worker that has time asks [`Dispatcher::next`] for its next slice: of a request that starts, within the quotas
//!    ([`Slots`]) and where it may ([`Placement`]), or of a guest that goes on ([`RunQueue`]); the accounts that have
//!    used least go first ([`AccountUse`]).
//! 5. [`Dispatcher::slice_ended`] says whether a guest may go on, [`Dispatcher::ready`] that it can;
//!    [`Dispatcher::finished`] returns its slot, and what the run took is remembered for the next ([`RunHistory`]).
//!
//! Beside it: [`overflow`](fn@overflow) says which other gateway takes a request, [`Departures`] keeps those that are
//! on their way there; [`FairCache`] and [`Retention`] say what goes when there is no room, [`Backoff`] when to try
//! again, [`Restarts`] when to give up, and [`Window`] what a broker still has to acknowledge.
//!
//! All that is shared is counted by [`FlowKey`]: an account, and one of its flows. Keys are hashed and cloned a few
//! times for each request: use one that is cheap at both, such as a shared pointer that carries its hash.

pub mod account_use;
pub mod admission;
pub mod backoff;
pub mod departures;
pub mod dispatcher;
pub mod fair_cache;
pub mod fair_queue;
pub mod flow_key;
mod key_map;
mod linked_slab;
mod names;
pub mod overflow;
pub mod permits;
pub mod placement;
pub mod recent_runs;
pub mod restarts;
pub mod retention;
pub mod slices;
pub mod slots;
pub mod table;
pub mod time;
pub mod window;

pub use account_use::AccountUse;
pub use admission::{Admission, AdmissionLimits, Busy, Load};
pub use backoff::Backoff;
pub use departures::{DEPARTURE_WINDOW, Departure, DepartureBounds, Departures, GivenUp};
pub use dispatcher::{Dispatcher, DispatcherLimits, Next, Submission};
pub use fair_cache::FairCache;
pub use fair_queue::{FairQueue, Full, QueueLimits, Refused};
pub use flow_key::FlowKey;
pub use overflow::{GatewayLoad, overflow};
pub use permits::{Change, PermitId, PermitLimits, Permits, Stage, Urgency};
pub use placement::Placement;
pub use recent_runs::{RecentRuns, RunHistory, SliceTime};
pub use restarts::Restarts;
pub use retention::Retention;
pub use slices::{AccountId, Choice, GuestId, RunQueue};
pub use slots::{NoSlot, Shares, Slots};
pub use time::Time;
pub use window::{Receipt, Received, Window};

/// How many requests one flow may have waiting, unless configured otherwise.
pub const DEFAULT_WAITING_PER_FLOW: usize = 4096;

/// How many requests may wait altogether, unless configured otherwise: four flows with all that they may have.
pub const DEFAULT_WAITING_TOTAL: usize = 4 * DEFAULT_WAITING_PER_FLOW;

/// The part of what there is that one account may take, in percent, unless configured otherwise: all clients without a
/// name at one address can use most of it, and every other account still finds a quarter.
pub const DEFAULT_ACCOUNT_SHARE: usize = 75;

/// Guests that one worker holds at once, unless configured otherwise or limited by the machine: a slot keeps megabytes
/// of memory.
pub const DEFAULT_SLOTS: usize = 1024;
