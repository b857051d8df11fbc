//! Other sites: requests that leave through a master, and those that come in from it.
//!
//! Each site has a gateway that is its router, and one or two masters join the routers (`offload-rt master`). A request
//! on `net/<gate>/…` goes the way of all requests, up to a [backend](crate::request::backend::Backend) that hands it to
//! the [`Router`]. At the other site it comes out of that gateway's router as a [`Delivery`](crate::ingress::Delivery),
//! goes the way of all requests there, and its answer comes back.
//!
//! - `router`: the two ends of that, as the gateway sees them.
//! - `departures`: the requests that are on their way to other sites. They wait here, and not at the master: it forgets
//!   everything when it ends, and nothing is lost by that. State without I/O.
//! - `arrivals`: the requests that have come from other sites, so that one that comes again runs once. State without
//!   I/O.
//! - `link`: the connection to one master.
//! - `message`: what routers send each other, as bytes that no master reads.
//! - `gates`: the table of gates that a master keeps, and shows.
//! - `master`: the master.
//!
//! # The topics between routers and master
//!
//! | from → to | topic | what |
//! | --- | --- | --- |
//! | router → master | `join` | JSON: who the router is, once for each connection ([`Join`](gates::Join)) |
//! | router → master | `load` | JSON: how busy its gateway is |
//! | router → master | `leave` | it goes; its will says the same when it is lost |
//! | router → master | `to/<gate>/<what>` | for that gate |
//! | master → router | `from/<gate>/<what>` | from that gate: the master writes its name |
//! | master → router | `from/<gate>/returned`, `from/<gate>/undelivered` | the tag of a request, or of an answer, that could not be handed to that gate |
//! | master → all | `gateway/<master>/routers` | retained JSON: the table of gates |
//!
//! | `<what>` | from whom | what |
//! | --- | --- | --- |
//! | `request`, `answer` | the one that asks, the one that answers | the request, its answer |
//! | `received` | the one that asks | tags of answers that it has: they need not be kept |
//! | `probe` | the one that asks | tags of requests that it waits for |
//! | `running`, `returned` | the one that answers | of these: those that run, those that are not known. For the others their answers come again |
//! | `message` | either | a copy of an ordinary message |

mod arrivals;
mod departures;
pub mod gates;
mod link;
pub mod master;
mod message;
mod router;

pub use departures::{Departure, Done};
pub use message::{MAX_HOPS, Reply, Request};
pub use router::{NetworkError, Router, RouterSettings};
