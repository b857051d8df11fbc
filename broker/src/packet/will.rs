//! The will of a connection (section 3.1.2.5): the message that the broker publishes when the client goes
//! without saying goodbye.

use crate::message::Message;

#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub message: Message,
    /// Seconds that it is held back, in case the client returns (section 3.1.3.2.2); 0 in 3.1.1.
    pub delay: u32,
}
