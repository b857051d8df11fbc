//! Puts objects into an object store, each name once: of two gateways that store one module at the same time, the later
//! one finds the other's, and takes its own chunks back. What stands in the store is what any client of NATS reads.

use crate::random::random;
use async_nats::datetime;
use async_nats::header::NATS_ROLLUP;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::{ObjectInfo, ObjectOptions};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE;
use bytes::Bytes;
use offload_protocol::request::Digest;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::timeout;

/// Bytes of a chunk, as clients of NATS have them.
const CHUNK: usize = 128 << 10;
/// How long the chunks of an object may take to be stored: less than what the whole may take, so that there is time to
/// take them back.
const PATIENCE: Duration = Duration::from_secs(20);
/// The value of [`NATS_ROLLUP`] by which a message takes the place of those on its subject.
const OF_SUBJECT: &str = "sub";

/// An object store, for who writes to it.
pub(super) struct Objects {
    context: Context,
    stream: Stream,
    bucket: String,
}

impl Objects {
    /// The store of this bucket, whose stream this is.
    pub fn new(context: Context, stream: Stream, bucket: String) -> Objects {
        Objects { context, stream, bucket }
    }

    /// Stores an object, unless there is one of this name.
    ///
    /// # Errors
    ///
    /// When it cannot be stored. It is known to be there only after a success.
    pub async fn put(&self, name: &str, bytes: &Bytes) -> Result<(), async_nats::Error> {
        let subject = format!("$O.{}.M.{}", self.bucket, BASE64_URL_SAFE.encode(name));
        let Some(replaced) = self.vacant(&subject).await? else { return Ok(()) };
        let nuid = format!("{:016x}{:016x}", random(), random());
        let chunks = format!("$O.{}.C.{nuid}", self.bucket);
        let stored = timeout(PATIENCE, self.put_chunks(&chunks, bytes)).await;
        if let Err(error) = stored.map_err(Into::into).and_then(|stored| stored) {
            self.take_back(&chunks).await?;
            return Err(error);
        }
        let object = serde_json::to_vec(&self.object(name, nuid, bytes))?;
        let message = PublishMessage::build().payload(object.into()).header(NATS_ROLLUP, OF_SUBJECT);
        let message = message.expected_last_subject_sequence(replaced);
        match self.context.send_publish(subject.clone(), message).await?.await {
            Ok(_) => Ok(()),
            // It may be there all the same.
            Err(error)
                if matches!(error.kind(), PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe) =>
            {
                Err(error.into())
            }
            // Another gateway has stored the same meanwhile, or the stream has no room.
            Err(error) => {
                self.take_back(&chunks).await?;
                if self.vacant(&subject).await?.is_some() { Err(error.into()) } else { Ok(()) }
            }
        }
    }

    /// The place of what an object of this name replaces, 0 for nothing; `None` where there is one. Of one that was
    /// removed its name is left.
    async fn vacant(&self, subject: &str) -> Result<Option<u64>, async_nats::Error> {
        match self.stream.get_last_raw_message_by_subject(subject).await {
            Ok(last) => {
                let object: ObjectInfo = serde_json::from_slice(&last.payload)?;
                Ok(object.deleted.then_some(last.sequence))
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(Some(0)),
            Err(error) => Err(error.into()),
        }
    }

    async fn put_chunks(&self, subject: &str, bytes: &Bytes) -> Result<(), async_nats::Error> {
        for start in (0..bytes.len()).step_by(CHUNK) {
            let chunk = bytes.slice(start..bytes.len().min(start + CHUNK));
            self.context.publish(subject.to_owned(), chunk).await?.await?;
        }
        Ok(())
    }

    async fn take_back(&self, chunks: &str) -> Result<(), async_nats::Error> {
        self.stream.purge().filter(chunks).await?;
        Ok(())
    }

    fn object(&self, name: &str, nuid: String, bytes: &Bytes) -> ObjectInfo {
        ObjectInfo {
            name: name.to_owned(),
            description: None,
            metadata: HashMap::new(),
            headers: None,
            options: Some(ObjectOptions { link: None, max_chunk_size: Some(CHUNK) }),
            bucket: self.bucket.clone(),
            nuid,
            size: bytes.len(),
            chunks: bytes.len().div_ceil(CHUNK),
            modified: Some(datetime::now()),
            digest: Some(format!("SHA-256={}", BASE64_URL_SAFE.encode(Digest::of(bytes).0))),
            deleted: false,
        }
    }
}
