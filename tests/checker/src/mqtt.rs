//! The client's side of MQTT 3.1.1 and 5, as far as the checker needs it, written for it alone.

mod packet;
mod session;

pub use packet::{Ack, Packet, Publish, Version, decode};
pub use session::{News, Session};
