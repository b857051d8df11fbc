//! What a client may do: publish to a topic, subscribe to a filter. The application decides, within what the broker
//! keeps for itself and its limits.

use crate::{
    application::Route,
    broker::Broker,
    reason::{Reason, Refusal},
    session::client::ClientInfo,
    topics::topic,
};

/// Where a client's message goes.
pub(crate) enum Destination {
    Subscribers,
    /// With the number that it gave the topic.
    Application(u32),
    /// It is taken and dropped.
    Nobody,
    Refused(Refusal),
}

impl Broker {
    /// Where a client's message on this topic goes, which is a valid name.
    pub(crate) fn destination(&self, client: &ClientInfo, topic: &str) -> Destination {
        let not_permitted = |cause| Destination::Refused(Refusal::new(Reason::NotAuthorized, cause));
        if let Some(cause) = topic::over_limit(topic, self.config()) {
            return Destination::Refused(Refusal::new(Reason::TopicNameInvalid, cause));
        }
        if topic.starts_with('$') {
            return match topic::is_bridge_state(topic) {
                // A bridge would not connect without it, and nobody else is shown what a client says of the server.
                true => Destination::Nobody,
                false => not_permitted("topics that start with $ are the server's own"), // [MQTT-4.7.2-1]
            };
        }
        match self.application().route(client, topic) {
            Route::Broker => Destination::Subscribers,
            Route::Application(claim) => Destination::Application(claim),
            Route::Refuse => not_permitted("the topic is not permitted"),
        }
    }

    /// Why a client cannot subscribe to a filter.
    pub(crate) fn check_subscription(&self, client: &ClientInfo, filter: &str) -> Result<(), Refusal> {
        self.topics().check_filter(filter)?;
        if self.application().may_subscribe(client, filter) {
            Ok(())
        } else {
            Err(Refusal::new(Reason::NotAuthorized, "the filter is not permitted"))
        }
    }
}
