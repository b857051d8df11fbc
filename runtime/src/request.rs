//! The life of a request, from a delivery to its answer.
//!
//! [`Pipeline`] is the whole. A request is a value that goes through its stages, and each stage is made by one step in
//! a file of its own:
//!
//! 1. `address`: where the answer may go,
//! 2. `decode`: what is asked, opened first where it is sealed (`open`); from here on an answer is owed
//!    ([`PendingAnswer`]), and [`Observer`]s see the request,
//! 3. `authorize`: whether this client may ask for it,
//! 4. `admit`: whether there is room for it, and when its publisher may believe that it is safe,
//! 5. `identify`: what it is known by when it comes again,
//! 6. `deduplicate`: whether it has come before,
//! 7. `claim`: whether another gateway runs it, where several are one service,
//! 8. `keep`: whether it outlives a crash,
//! 9. `cancel`: whether it is to end another request,
//! 10. `resolve`: which program or module it means, and which backend runs it,
//! 11. `poison`: whether it has crashed the gateway, and is set aside,
//! 12. `dispatch`: the [`Backend`](backend::Backend) takes it, and
//! 13. `answer`: the one way out, for answers of every kind.
//!
//! The steps before the last run on the ingress's task and decide at once. What has to wait, for a module that is
//! prepared, for a sandbox or for other gateways, waits in a task of its own (`tasks`), and so does a request that has
//! to run alone (`suspect`). A step that ends a request returns a [`Refusal`].

mod address;
mod admit;
pub mod answer;
mod authorize;
pub mod backend;
mod cancel;
mod claim;
mod claimed;
mod decode;
mod deduplicate;
mod dispatch;
mod identify;
pub mod journal;
mod keep;
pub mod observer;
pub mod open;
mod pipeline;
mod poison;
pub mod recovery;
pub mod request_log;
mod resolve;
mod run;
pub mod services;
mod settings;
mod suspect;
mod tasks;

pub use answer::{PendingAnswer, Refusal, Repetition};
pub use observer::Observer;
pub use pipeline::Pipeline;
pub use services::Services;
pub use settings::Settings;
