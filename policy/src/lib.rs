//! The gateway's decisions as plain state machines: who is let in, who is next, who may hold how much.
//!
//! Nothing here has a clock, a socket, a thread or a log. Time comes in as a parameter, answers go out as
//! values, and the same calls in the same order give the same results, so that three drivers can share the
//! code:
//!
//! - the **runtime** passes the time since its start and holds the shared parts behind one lock;
//! - a **simulator** passes virtual time, and runs fleets of gateways in one thread;
//! - **tests** pass numbers from a table.
//!
//! # The way of a request
//!
//! 1. [`Admission::admit`] counts it as waiting, or says `busy` and after how long to try again. It then waits
//!    in a [`FairQueue`]: of those that must be compiled first, then of those that can run. It counts as
//!    waiting, once, through both and while it is compiled.
//! 2. A worker that has time asks its own [`RunQueue::choose`] what to do. To start something new it takes from
//!    the queue what [`Slots::may_start`] allows, then calls [`Slots::try_acquire`] and [`Admission::started`].
//! 3. A guest that is ready to go on is put into the worker's run queue with the CPU time it has used; when it
//!    ends, [`Slots::release`] returns its slot.
//!
//! A request that leaves without having run (expired, not compilable) goes through [`Admission::withdrawn`].
//!
//! What takes a compiler or a sandbox, and seconds, gets it by [`Permits`].
//!
//! All of them count by [`FlowKey`]: an account, and one of its flows. Keys are hashed and cloned several times for
//! each request: use one that is cheap at both, such as a shared pointer that carries its hash.
//!
//! ```
//! use offload_policy::{Admission, AdmissionLimits, Load, Shares, Slots};
//! use offload_policy::{Choice, FairQueue, QueueLimits, RunQueue, Time};
//!
//! let mut admission = Admission::new(AdmissionLimits::default());
//! let mut queue = FairQueue::new(QueueLimits::default());
//! let mut slots = Slots::new(1, 100, Shares::default());
//! let mut run_queue = RunQueue::new(RunQueue::DEFAULT_MAX_WAIT);
//! let now = Time::ZERO;
//!
//! // A request comes in; it must start within two seconds.
//! let key = ("address 192.0.2.1", "device-1");
//! let load = Load { requests: 1, bytes: 64 };
//! let deadline = now + Time::from_secs(2);
//! admission.admit(&key, load, now).expect("an empty gateway has room");
//! queue.push(key, "5 7", Some(deadline)).expect("admission let no more in than fits");
//!
//! // Worker 0 has nothing else to do.
//! assert_eq!(queue.expire(now).count(), 0);
//! assert_eq!(run_queue.choose(now, slots.free(0) > 0 && !queue.is_empty()), Choice::StartNew);
//! let popped = queue.pop_where(|account| slots.account_may_start(account), |key, _| slots.flow_may_start(key));
//! let (key, request) = popped.expect("it waits, and may start");
//! slots.try_acquire(0, &key).expect("a slot is free");
//! admission.started(&key, load, now);
//! assert_eq!(request, "5 7");
//!
//! // Its first slice ended before the guest did, so it takes part in the choice of the next one.
//! let now = now + Time::from_millis(1);
//! run_queue.insert(0, Time::from_millis(1), now);
//! assert_eq!(run_queue.choose(now, !queue.is_empty()), Choice::Resume(0));
//! slots.release(0, &key);
//! ```

pub mod admission;
pub mod fair_queue;
pub mod flow_key;
mod key_map;
mod linked_slab;
pub mod permits;
pub mod slices;
pub mod slots;

pub use admission::{Admission, AdmissionLimits, Busy, Load};
pub use fair_queue::{FairQueue, Full, QueueLimits, Refused};
pub use flow_key::FlowKey;
pub use permits::{Change, PermitId, PermitLimits, Permits, Stage, Urgency};
pub use slices::{Choice, GuestId, RunQueue};
pub use slots::{NoSlot, Shares, Slots};

/// A point in time: how long after a start that the driver chose once, for all parts. It never goes
/// backwards.
pub type Time = std::time::Duration;

/// How many requests one flow may have waiting, unless configured otherwise.
pub const DEFAULT_WAITING_PER_FLOW: usize = 4096;

/// How many requests may wait altogether, unless configured otherwise: four flows with all that they may have.
pub const DEFAULT_WAITING_TOTAL: usize = 4 * DEFAULT_WAITING_PER_FLOW;

/// The part of what there is that one account may take, in percent, unless configured otherwise: all clients without a
/// name at one address can use most of it, and every other account still finds a quarter.
pub const DEFAULT_ACCOUNT_SHARE: usize = 75;
