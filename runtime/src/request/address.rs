//! Whether a delivery is a request, and where its answer goes.

use super::journal::promise::{Origin, Promise};
use crate::client::Client;
use crate::config::Answers;
use crate::ingress::{Delivery, ReplyAddress, Responder};
use crate::log_sampling::sampled;
use crate::site::Site;
use crate::telemetry;
use bytes::Bytes;
use offload_protocol::UserProperties;
use offload_protocol::topic::{self, RequestKind};
use std::sync::Arc;
use std::time::Instant;

/// A request whose answer has an address.
pub struct Addressed {
    pub client: Client,
    pub topic: String,
    /// The site that it is for, if that is another one.
    pub destination: Option<Arc<str>>,
    pub kind: RequestKind,
    pub reply_id: Arc<str>,
    pub payload: Bytes,
    pub user_properties: UserProperties,
    pub arrived: Instant,
    pub promise: Promise,
    pub responder: Box<dyn Responder>,
    pub reply_address: ReplyAddress,
    /// The request names a Response Topic that answers to this client cannot go to; its own topic stands in.
    pub is_misdirected: bool,
    /// Its topic names another site, which it was not for: a router has brought it here.
    pub is_astray: bool,
}

/// Takes a delivery apart. `None` for one that is no request: it is acknowledged, and nothing else comes of it.
pub fn address(
    delivery: Delivery,
    origin: Origin,
    answers: &Answers,
    site: &Site,
    arrived: Instant,
) -> Option<Addressed> {
    let routed = topic::parse_routed(&delivery.topic);
    let plain = routed.map_or(&*delivery.topic, |routed| routed.plain);
    // Foreign brokers may let pass what is no topic, such as the NUL that clients of other sites are known by.
    let request = topic::parse_request(plain).filter(|_| topic::is_valid_name(&delivery.topic));
    let Some(request) = request else {
        origin.end();
        delivery.ignore();
        return None;
    };
    if delivery.retained {
        sampled!(
            info,
            topic = %telemetry::bounded(&delivery.topic),
            "a retained message is no request: ignored"
        );
        origin.end();
        delivery.ignore();
        return None;
    }
    // What comes from another site is answered here.
    let elsewhere = routed.filter(|routed| !site.is_own(routed.gate));
    let is_routed = delivery.client.is_routed();
    let is_astray = is_routed && elsewhere.is_some();
    let destination = elsewhere.filter(|_| !is_routed).map(|routed| Arc::from(routed.gate));
    let (kind, reply_id) = (request.kind, Arc::from(request.reply_id));
    let Delivery { client, topic, payload, properties, acceptance, responder, .. } = delivery;
    let (topic_of_answer, is_misdirected) = match properties.response_topic {
        // The asking site has judged it, and limits its answers.
        Some(named) if is_routed => (named, false),
        named => topic_of_answer(named, &reply_id, answers),
    };
    let reply_address = ReplyAddress {
        max_payload: answers.max_payload(&topic_of_answer).filter(|_| !is_routed),
        topic: topic_of_answer,
        correlation_data: properties.correlation_data,
    };
    let user_properties = properties.user_properties;
    Some(Addressed {
        client,
        topic,
        destination,
        kind,
        reply_id,
        payload,
        user_properties,
        arrived,
        promise: Promise::new(acceptance, origin),
        responder,
        reply_address,
        is_misdirected,
        is_astray,
    })
}

/// The Response Topic if it is permitted, and otherwise the result topic; whether one was named that is not permitted.
fn topic_of_answer(named: Option<String>, reply_id: &str, answers: &Answers) -> (String, bool) {
    match named {
        Some(named) if topic::is_response_permitted(&named, reply_id, &answers.response_topics) => {
            (named, false)
        }
        Some(_) => (topic::result(reply_id), true),
        None => (topic::result(reply_id), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_the_response_topic_where_that_is_permitted() {
        let answers = Answers { response_topics: vec!["plant/+".parse().unwrap()], ..Answers::default() };
        for (named, expected) in [
            (None, ("result/d", false)),
            (Some("result/d"), ("result/d", false)),
            (Some("result/d/x"), ("result/d/x", false)),
            (Some("plant/a"), ("plant/a", false)),
            (Some("result/other"), ("result/d", true)),
            (Some("localCode/d"), ("result/d", true)),
            (Some("plant/#"), ("result/d", true)),
        ] {
            let (topic, is_misdirected) = topic_of_answer(named.map(str::to_owned), "d", &answers);
            assert_eq!((topic.as_str(), is_misdirected), expected, "{named:?}");
        }
    }
}
