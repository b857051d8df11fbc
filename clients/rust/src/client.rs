//! The client as programs see it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use offload_mqtt::{Connected, MAX_PACKET, Message, Properties};
use offload_protocol::UserProperties;
use offload_protocol::request::{self, RequestKind};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::driver::Driver;
use crate::in_flight::{InFlight, KnownBy, Parts, Sequence, no_correlation};
use crate::options::random;
use crate::sealing::{self, Sealed};
use crate::{
    Answer, Code, Digest, Error, ErrorKind, Form, MqttVersion, Options, Outcome, Part, ReplyForm, Request,
    RequestId, WireError,
};

/// What a client and its driver share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) in_flight: Arc<InFlight>,
    /// The broker's Maximum Packet Size in bytes.
    max_packet: AtomicUsize,
    /// Whether the gateway of this connection is known not to take digests.
    no_digests: AtomicBool,
}

impl Shared {
    /// Notes a new connection, and what the broker says in its CONNACK.
    pub(crate) fn connected(&self, connected: &Connected) {
        // Another gateway may be behind it now.
        self.no_digests.store(false, Ordering::Relaxed);
        self.max_packet.store(connected.max_packet(), Ordering::Relaxed);
    }
}

/// A connection to a broker that has a gateway.
///
/// Dropping it disconnects in the background; [`Client::disconnect`] waits until that is done.
pub struct Client {
    shared: Arc<Shared>,
    /// One for each request in flight.
    slots: Semaphore,
    /// Tells the driver of requests to send; the driver ends when it is dropped.
    requests: mpsc::Sender<Sequence>,
    driver: JoinHandle<()>,
    /// The module that was sent last: whoever sends one sends it again, and hashing it can take longer than running it.
    last_module: Mutex<Option<(Bytes, Digest)>>,
}

impl Client {
    /// Connects and subscribes to the answers. Must be called within a tokio runtime, on which the connection then
    /// lives.
    ///
    /// # Errors
    /// If that does not succeed at the first attempt, within [`Options::connect_timeout`]; or at once, if an option
    /// cannot be used.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        options.check()?;
        let max_in_flight = usize::from(options.max_in_flight);
        let shared = Arc::new(Shared {
            options,
            in_flight: Arc::new(InFlight::new()),
            max_packet: AtomicUsize::new(MAX_PACKET),
            no_digests: AtomicBool::new(false),
        });
        let driver = Driver::connect(shared.clone()).await?;
        let (requests, to_send) = mpsc::channel(max_in_flight);
        Ok(Self {
            shared,
            slots: Semaphore::new(max_in_flight),
            requests,
            driver: tokio::spawn(driver.run(to_send)),
            last_module: Mutex::default(),
        })
    }

    /// Sends a request and waits for its answer; waits before that while too many are in flight.
    ///
    /// Of a module in an envelope only the digest is sent at first, and the module itself to a gateway that does not
    /// have it. The client keeps the module that was sent last: of clones of it the digest is known.
    ///
    /// A caller that no longer wants the answer drops the future.
    ///
    /// # Errors
    /// If the request cannot be sent, or no answer comes within the request's own timeout and
    /// [`Options::transport_grace`], or without one within [`Options::answer_timeout`]. What goes wrong at the gateway
    /// is an answer, not an error.
    pub async fn send(&self, request: Request) -> Result<Answer, Error> {
        self.send_with(request, None).await
    }

    /// Like [`Client::send`]; meanwhile `parts` gets what the program writes to stdout, as it is written. The answer
    /// has the whole of it. What there is no room for in `parts`, or what is lost on the way, is left out: an
    /// [`Assembly`](crate::Assembly) fills it in from the answer. A request without an id gets one, by which it can be
    /// known. The connection must be one with [`Options::streams`].
    ///
    /// # Errors
    /// Those of [`Client::send`].
    pub async fn send_streaming(
        &self,
        mut request: Request,
        parts: mpsc::Sender<Part>,
    ) -> Result<Answer, Error> {
        if !self.shared.options.streams {
            return Err(Error::InvalidOption("streams: expected, to get what a program writes".to_owned()));
        }
        let made_up = request.id.is_none();
        let id = request.id.get_or_insert_with(made_up_id).clone();
        request.reply = ReplyForm::Stream;
        let mut answer = self.send_with(request, Some(Parts { id, sender: parts })).await?;
        if made_up {
            answer.id = None;
        }
        Ok(answer)
    }

    /// Cancels the request of this client that has this id: it is answered `cancelled`, and the answer to this is `ok`;
    /// `not-found` where no such request waits or runs. Does not wait for others in flight.
    ///
    /// # Errors
    /// Those of [`Client::send`].
    pub async fn cancel(&self, id: &RequestId) -> Result<Answer, Error> {
        self.send(Request::new(Code::Cancel(id.clone()))).await
    }

    async fn send_with(&self, request: Request, parts: Option<Parts>) -> Result<Answer, Error> {
        let Options { transport_grace, answer_timeout, .. } = self.shared.options;
        let wait = request.limits.timeout.map_or(answer_timeout, |own| own.saturating_add(transport_grace));
        let request = match self.shared.options.mqtt_version {
            MqttVersion::V311 => in_envelope(request)?,
            MqttVersion::V5 => request,
        };
        let request = match self.shared.options.seal {
            Some(_) => sealing::prepared(request)?,
            None => request,
        };
        match timeout(wait, self.digest_first(request, parts)).await {
            Ok(reply) => reply,
            Err(_) => Err(Error::NoAnswer { waited: wait, lost: self.lost().borrow().clone() }),
        }
    }

    async fn digest_first(&self, request: Request, parts: Option<Parts>) -> Result<Answer, Error> {
        let Code::Module(module) = &request.code else {
            return self.exchange(request, None, parts).await;
        };
        let in_envelope = matches!(request.form, Form::Cbor | Form::Json);
        if !in_envelope || self.shared.no_digests.load(Ordering::Relaxed) {
            return self.exchange(request, None, parts).await;
        }
        let digest = self.digest(module);
        let by_digest = Request { code: Code::Digest(digest), ..request.clone() };
        // Where the module would go: a client may be permitted that topic alone.
        let answer = self.exchange(by_digest, Some(RequestKind::InputCode), parts.clone()).await?;
        match &answer.outcome {
            Outcome::Failed(WireError { kind: ErrorKind::NotFound, .. }) => {}
            Outcome::Failed(WireError { kind: ErrorKind::Malformed, message })
                if message.starts_with("digest") =>
            {
                self.shared.no_digests.store(true, Ordering::Relaxed);
            }
            _ => return Ok(answer),
        }
        self.exchange(request, None, parts).await
    }

    fn digest(&self, module: &Bytes) -> Digest {
        let mut last = self.last_module.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            // The same bytes in memory, which cannot have become others: we have held them since.
            Some((known, digest)) if (known.as_ptr(), known.len()) == (module.as_ptr(), module.len()) => {
                *digest
            }
            _ => {
                let digest = Digest::of(module);
                *last = Some((module.clone(), digest));
                digest
            }
        }
    }

    /// Publishes a request of this kind and waits for its answer.
    async fn exchange(
        &self,
        mut request: Request,
        kind: Option<RequestKind>,
        parts: Option<Parts>,
    ) -> Result<Answer, Error> {
        let known_by = match self.shared.options.mqtt_version {
            MqttVersion::V5 => KnownBy::Correlation(request.answer_form()),
            MqttVersion::V311 => {
                let made_up = request.id.is_none();
                let id = request.id.get_or_insert_with(made_up_id).clone();
                KnownBy::Id { id, made_up }
            }
        };
        let (message, known_by) = match &self.shared.options.seal {
            Some(key) => {
                let Sealed { topic, payload, answers } =
                    sealing::seal(key, &request, kind, &self.shared.options)?;
                (self.message(topic, payload, Vec::new())?, KnownBy::Seal(answers))
            }
            None => (self.message_in_clear(&request, kind)?, known_by),
        };
        // One that ends another does not wait for that.
        let _slot = match request.code {
            Code::Cancel(_) => None,
            _ => Some(self.slots.acquire().await.expect("the semaphore is never closed")),
        };
        let (registration, reply) = self.shared.in_flight.insert(message, known_by, parts)?;
        // Fails only when the driver has ended, which then has said why.
        let _ = self.requests.send(registration.sequence).await;
        reply.await.unwrap_or_else(|_| Err(self.closed()))
    }

    /// The message of a request, on the topic of `kind` or by default on that where its code belongs.
    fn message_in_clear(&self, request: &Request, kind: Option<RequestKind>) -> Result<Message, Error> {
        let (own_kind, payload, user_properties) =
            request::encode(request).map_err(|error| Error::Request(error.message))?;
        let topic = self.shared.options.request_topic(kind.unwrap_or(own_kind));
        self.message(topic, payload, user_properties)
    }

    fn message(
        &self,
        topic: String,
        payload: Bytes,
        user_properties: UserProperties,
    ) -> Result<Message, Error> {
        let Options { mqtt_version, .. } = &self.shared.options;
        let properties = Properties {
            response_topic: Some(self.shared.options.result_topic()),
            correlation_data: Some(no_correlation()),
            user_properties,
            ..Properties::default()
        };
        let message = Message { properties, ..Message::new(topic, payload) };
        let size = message.packet_size(*mqtt_version);
        let limit = self.shared.max_packet.load(Ordering::Relaxed);
        if size > limit { Err(Error::TooLarge { size, limit }) } else { Ok(message) }
    }

    fn closed(&self) -> Error {
        self.shared.in_flight.closed().unwrap_or_else(|| Error::Closed("its runtime has ended".to_owned()))
    }

    /// Follows the connection: why it is lost while it is being made again, and `None` while there is one.
    pub fn lost(&self) -> watch::Receiver<Option<String>> {
        self.shared.in_flight.lost()
    }

    /// Disconnects as MQTT wants it done, within a second.
    pub async fn disconnect(self) {
        let Self { requests, driver, .. } = self;
        drop(requests);
        // It fails only with the runtime, and then there is nothing left to wait for.
        let _ = driver.await;
    }
}

/// MQTT 3.1.1 has neither user properties nor Correlation Data: envelopes take their place, both ways.
fn in_envelope(request: Request) -> Result<Request, Error> {
    if request.code == Code::DefaultProgram {
        let problem = "program: expected a name; MQTT 3.1.1 cannot tell answers of the default program apart";
        return Err(Error::Request(problem.to_owned()));
    }
    let form = if request.form == Form::Cbor { Form::Cbor } else { Form::Json };
    let reply = if request.reply == ReplyForm::Stream { ReplyForm::Stream } else { ReplyForm::Envelope };
    Ok(Request { form, reply, ..request })
}

/// An id that no other request is likely to have got.
pub fn made_up_id() -> RequestId {
    let id = format!("{:016x}{:016x}", random(), random());
    id.as_str().try_into().expect("it is not too long")
}
