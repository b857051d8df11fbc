//! Looks for a request among those that no gateway has answered yet: they are in a stream until then.

use super::jetstream::{JetStream, MQTT_MESSAGES, MQTT_STREAM};
use super::subject::subject_of;
use crate::fingerprint::Fingerprint;
use crate::shared::Target;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::RawMessageErrorKind;
use offload_protocol::request::RequestKind;
use offload_protocol::topic;
use std::time::Duration;
use tokio::time::timeout;

/// How long a search may take: a device that has thousands of requests waiting is told to try again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The streams that requests wait in.
pub(super) struct Unanswered {
    context: Context,
    requests: String,
}

impl Unanswered {
    /// Those of this service.
    pub fn new(jetstream: &JetStream) -> Unanswered {
        Unanswered { context: jetstream.context.clone(), requests: jetstream.share.clone() }
    }

    /// The fingerprint of this request, if it is there.
    ///
    /// # Errors
    ///
    /// When the streams do not answer in time.
    pub async fn find(&self, target: &Target) -> Result<Option<Fingerprint>, async_nats::Error> {
        let searching = async {
            for kind in [RequestKind::InputCode, RequestKind::LocalCode] {
                let Some(subject) = subject_of(&topic::request(kind, &target.reply_id)) else { continue };
                for (stream, prefix) in [(MQTT_STREAM, MQTT_MESSAGES), (&self.requests, "")] {
                    let found = self.find_in(stream, &format!("{prefix}{subject}"), kind, target).await?;
                    if found.is_some() {
                        return Ok(found);
                    }
                }
            }
            Ok(None)
        };
        timeout(PATIENCE, searching).await?
    }

    async fn find_in(
        &self,
        stream: &str,
        subject: &str,
        kind: RequestKind,
        target: &Target,
    ) -> Result<Option<Fingerprint>, async_nats::Error> {
        let stream = self.context.get_stream_no_info(stream).await?;
        let mut sequence = 1;
        loop {
            let message = match stream.get_first_raw_message_by_subject(subject, sequence).await {
                Ok(message) => message,
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if let Some(fingerprint) = (target.recognize)(kind, &message.payload) {
                return Ok(Some(fingerprint));
            }
            sequence = message.sequence + 1;
        }
    }
}
