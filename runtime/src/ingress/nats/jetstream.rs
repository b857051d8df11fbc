//! What the gateways have in JetStream: found or created, and checked, before a request is taken.

use crate::config::{self, BrokerUrls, Config};
use crate::ingress::external_mqtt::{self, ExternalError};
use crate::keys::KeysError;
use crate::log_sampling::sampled;
use crate::random::random;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::object_store::ObjectStore;
use async_nats::jetstream::stream::{self, ConsumerErrorKind, DiscardPolicy, RetentionPolicy, Stream};
use async_nats::jetstream::{Context, ErrorCode, consumer, kv};
use async_nats::{Client, ConnectOptions};
use offload_policy::Backoff;
use offload_protocol::topic::{INPUT_CODE_FILTER, LOCAL_CODE_FILTER};
use offload_tls::TlsError;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Begins the subjects of the stream in which the servers keep what was published by MQTT at QoS 1 and 2.
pub(super) const MQTT_MESSAGES: &str = "$MQTT.msgs.";
/// That stream. It is there when the first client has connected by MQTT.
pub(super) const MQTT_STREAM: &str = "$MQTT_msgs";
/// Requests of one consumer that are with gateways at once, all gateways together.
const MAX_ACK_PENDING: i64 = 1 << 20;
/// Replicas in a cluster, where the configuration does not say.
const CLUSTER_REPLICAS: usize = 3;
/// Waits between attempts while a server, or a part of its cluster, is away.
pub(super) const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why NATS cannot be used at all. A server that is away is tried again for ever.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The files for TLS cannot be used.
    #[error("cannot join NATS by TLS: {0}")]
    Tls(#[from] TlsError),
    /// The password file cannot be read.
    #[error("cannot read the password for NATS from {}: {source}", path.display())]
    Password {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The keys that requests are sealed to cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// They cannot be made.
    #[error("cannot make keys: {0}")]
    Making(io::Error),
    /// The servers' MQTT listeners cannot be used.
    #[error(transparent)]
    Mqtt(#[from] ExternalError),
    /// What is in JetStream contradicts the configuration.
    #[error("{what} is not as this gateway needs it: {problem}; {fix}")]
    Contradiction {
        /// The stream, consumer or bucket.
        what: String,
        /// What is not as it should be.
        problem: String,
        /// What to do about it.
        fix: String,
    },
}

/// A connection to NATS, and what of the configuration is about it.
#[derive(Clone)]
pub struct JetStream {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) config: config::Nats,
    /// Begins the names of what the gateways have.
    pub(super) share: String,
    /// Where a server may be, for logs.
    pub(super) urls: BrokerUrls,
    replicas: usize,
}

impl JetStream {
    /// Connects. Waits for a server as long as there is none.
    ///
    /// # Errors
    ///
    /// When the password file, or the files for TLS, cannot be used.
    pub async fn connect(config: &Config, broker: &config::Broker) -> Result<JetStream, NatsError> {
        let password = match &broker.password_file {
            Some(path) => external_mqtt::read_password(path)
                .map_err(|source| NatsError::Password { path: path.clone(), source })?,
            None => String::new(),
        };
        let tls = broker.tls().map(|files| files.client_config()).transpose()?;
        let servers: Vec<String> = broker.url.all().iter().map(ToString::to_string).collect();
        let mut backoff = Backoff::new(broker.reconnect_min.into(), broker.reconnect_max.into());
        let client = loop {
            let (least, most) = (broker.reconnect_min.duration(), broker.reconnect_max.duration());
            let mut options = ConnectOptions::new()
                .name(format!("offload-rt {}", config.name))
                .connection_timeout(broker.connect_timeout.into())
                .ping_interval(broker.keep_alive.into())
                .reconnect_delay_callback(move |attempts| {
                    least.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(most)
                })
                .event_callback(|event| async move { tracing::info!(%event, "the connection to NATS") });
            if let Some(user) = &broker.username {
                options = options.user_and_password(user.clone(), password.clone());
            }
            if let Some(tls) = &tls {
                options = options.tls_client_config((**tls).clone()).require_tls(true);
            }
            match options.connect(&servers).await {
                Ok(client) => break client,
                Err(error) => {
                    let (servers, error) = (&broker.url, offload_tls::explain(&error));
                    _ = sampled!(warn, %servers, error, "no connection to NATS; trying again");
                    tokio::time::sleep(backoff.wait(random())).await;
                }
            }
        };
        let info = client.server_info();
        let default_replicas = if info.cluster.is_some() { CLUSTER_REPLICAS } else { 1 };
        let (server, version) = (info.server_name, info.version);
        tracing::info!(server, version, "connected to NATS");
        let nats = config.nats.clone();
        let replicas = nats.replicas.map_or(default_replicas, Into::into);
        let context = async_nats::jetstream::new(client.clone());
        Ok(JetStream {
            client,
            context,
            config: nats,
            share: broker.share.clone(),
            urls: broker.url.clone(),
            replicas,
        })
    }

    /// The consumers of requests at QoS 1 and 2, one for each request topic. They are there before
    /// [`requests`](Self::requests), whose copies of these requests are passed over.
    ///
    /// # Errors
    ///
    /// When a consumer exists that is another one.
    pub(super) async fn mqtt_requests(&self) -> Result<Vec<PullConsumer>, NatsError> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        while self.context.get_stream(MQTT_STREAM).await.is_err() {
            _ = sampled!(
                warn,
                "NATS has no stream {MQTT_STREAM} yet, which it makes for the first client that connects by MQTT: does \
                 `nats.mqtt` name an MQTT listener of its servers?"
            );
            tokio::time::sleep(backoff.wait(random())).await;
        }
        let mut consumers = Vec::new();
        for filter in [LOCAL_CODE_FILTER, INPUT_CODE_FILTER] {
            let topic = filter.trim_end_matches("/#");
            let name = format!("{}-{topic}", self.share);
            let subjects = format!("{MQTT_MESSAGES}{topic}.>");
            consumers.push(self.consumer(MQTT_STREAM, name, subjects).await?);
        }
        Ok(consumers)
    }

    /// The consumer of all other requests: those at QoS 0, and those of clients of NATS itself.
    ///
    /// # Errors
    ///
    /// When the stream or the consumer exists and is another one.
    pub(super) async fn requests(&self) -> Result<PullConsumer, NatsError> {
        let name = &self.share;
        let subjects =
            [LOCAL_CODE_FILTER, INPUT_CODE_FILTER].map(|filter| filter.replace("/#", ".>")).to_vec();
        let wanted = stream::Config {
            name: name.clone(),
            description: Some("requests that no gateway of offload-rt has answered yet".to_owned()),
            subjects: subjects.clone(),
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_bytes: bytes(self.config.request_bytes),
            num_replicas: self.replicas,
            ..stream::Config::default()
        };
        let stream = self.stream(wanted).await?;
        let found = &stream.cached_info().config;
        let contradicts = |problem: String, fix: String| {
            Err(NatsError::Contradiction { what: format!("the stream {name}"), problem, fix })
        };
        if found.retention != RetentionPolicy::WorkQueue {
            let problem = format!("its retention is {:?}, not WorkQueue", found.retention);
            return contradicts(problem, format!("`nats stream rm {name}` if nothing of it is needed"));
        }
        if !subjects.iter().all(|subject| found.subjects.contains(subject)) {
            let (problem, subjects) =
                (format!("it has the subjects {:?}", found.subjects), subjects.join(","));
            return contradicts(problem, format!("`nats stream edit {name} --subjects '{subjects}'`"));
        }
        self.check_replicas(&format!("the stream {name}"), found)?;
        self.consumer(name, name.clone(), String::new()).await
    }

    /// Finds a stream, or creates it. Tries until there is an answer.
    pub(super) async fn stream(&self, wanted: stream::Config) -> Result<Stream, NatsError> {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.context.get_stream(&wanted.name).await {
                Ok(stream) => return Ok(stream),
                Err(error) if is_missing(error.kind()) => {}
                Err(error) => {
                    self.wait(&mut backoff, &wanted.name, error).await;
                    continue;
                }
            }
            match self.context.create_stream(wanted.clone()).await {
                Ok(_) => tracing::info!(stream = wanted.name, replicas = wanted.num_replicas, "created"),
                Err(error) => match error.kind() {
                    CreateStreamErrorKind::JetStream(reason) if is_permanent(reason.error_code()) => {
                        return Err(self.cannot_create(&wanted, reason.error_code(), &error).await);
                    }
                    _ => self.wait(&mut backoff, &wanted.name, error).await,
                },
            }
        }
    }

    /// Finds a consumer, or creates it.
    async fn consumer(
        &self,
        stream: &str,
        name: String,
        filter_subject: String,
    ) -> Result<PullConsumer, NatsError> {
        let ack_wait = self.config.ack_wait.duration();
        let wanted = pull::Config {
            durable_name: Some(name.clone()),
            description: Some("shared by the gateways of offload-rt".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait,
            max_deliver: -1,
            max_ack_pending: MAX_ACK_PENDING,
            filter_subject: filter_subject.clone(),
            ..pull::Config::default()
        };
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let found: consumer::Config = loop {
            match self.context.get_consumer_from_stream::<consumer::Config, _, _>(&name, stream).await {
                Ok(found) => break found.cached_info().config.clone(),
                Err(error) if is_no_consumer(&error.kind()) => {}
                Err(error) => {
                    self.wait(&mut backoff, &name, error).await;
                    continue;
                }
            }
            match self.context.create_consumer_on_stream(wanted.clone(), stream).await {
                Ok(consumer) => return Ok(consumer),
                Err(error) => self.wait(&mut backoff, &name, error).await,
            }
        };
        let contradicts = |problem: String, fix: String| {
            let what = format!("the consumer {name} of the stream {stream}");
            Err(NatsError::Contradiction { what, problem, fix })
        };
        let remove = format!("`nats consumer rm '{stream}' {name}`, and the gateway makes another");
        if found.deliver_subject.is_some() || found.ack_policy != AckPolicy::Explicit {
            return contradicts("it is not pulled with explicit acknowledgements".to_owned(), remove);
        }
        if found.filter_subject != filter_subject {
            return contradicts(format!("it filters {:?}", found.filter_subject), remove);
        }
        if found.ack_wait != ack_wait {
            let problem =
                format!("its acknowledgement wait is {:?}, `nats.ack_wait` {ack_wait:?}", found.ack_wait);
            return contradicts(
                problem,
                format!("`nats consumer edit '{stream}' {name} --wait {}s`", ack_wait.as_secs()),
            );
        }
        loop {
            match self.context.get_consumer_from_stream(&name, stream).await {
                Ok(consumer) => return Ok(consumer),
                Err(error) => self.wait(&mut backoff, &name, error).await,
            }
        }
    }

    /// Whether a stream has as many replicas as the configuration wants, if it says.
    pub(super) fn check_replicas(&self, what: &str, found: &stream::Config) -> Result<(), NatsError> {
        let Some(wanted) =
            self.config.replicas.map(usize::from).filter(|wanted| *wanted != found.num_replicas)
        else {
            return Ok(());
        };
        Err(NatsError::Contradiction {
            what: what.to_owned(),
            problem: format!("it has {} replicas, `nats.replicas` is {wanted}", found.num_replicas),
            fix: format!("`nats stream edit {} --replicas {wanted}`", found.name),
        })
    }

    /// A key-value bucket that is there.
    pub(super) async fn bucket(&self, name: &str) -> kv::Store {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.context.get_key_value(name).await {
                Ok(store) => return store,
                Err(error) => self.wait(&mut backoff, name, error).await,
            }
        }
    }

    /// An object store that is there.
    pub(super) async fn object_store(&self, name: &str) -> ObjectStore {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.context.get_object_store(name).await {
                Ok(store) => return store,
                Err(error) => self.wait(&mut backoff, name, error).await,
            }
        }
    }

    /// As many replicas as what is created has.
    pub(super) fn replicas(&self) -> usize {
        self.replicas
    }

    async fn cannot_create(
        &self,
        wanted: &stream::Config,
        code: ErrorCode,
        error: &impl Display,
    ) -> NatsError {
        let what = format!("the stream {}", wanted.name);
        if code == ErrorCode::STREAM_SUBJECT_OVERLAP {
            let mut others = Vec::new();
            for subject in &wanted.subjects {
                others.extend(self.context.stream_by_subject(subject.as_str()).await.ok());
            }
            others.dedup();
            let others = others.join(", ");
            return NatsError::Contradiction {
                what,
                problem: format!("another stream ({others}) has its subjects: {error}"),
                fix: "`nats stream edit NAME --subjects …` without them, or `nats stream rm NAME`".to_owned(),
            };
        }
        let replicas = wanted.num_replicas;
        NatsError::Contradiction {
            what,
            problem: format!(
                "it cannot be created with {replicas} replicas and {} bytes: {error}",
                wanted.max_bytes
            ),
            fix: "set `nats.replicas` and `nats.*_bytes` to what the servers have".to_owned(),
        }
    }

    async fn wait(&self, backoff: &mut Backoff, what: &str, error: impl Display) {
        let servers = &self.urls;
        _ = sampled!(warn, %servers, what, %error, "JetStream does not answer; trying again");
        tokio::time::sleep(backoff.wait(random())).await;
    }
}

fn is_missing(kind: GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn is_no_consumer(kind: &ConsumerErrorKind) -> bool {
    matches!(kind, ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// Whether a stream will never be created this way.
fn is_permanent(code: ErrorCode) -> bool {
    [
        ErrorCode::STREAM_SUBJECT_OVERLAP,
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ]
    .contains(&code)
}

/// As JetStream counts them.
pub(super) fn bytes(size: config::ByteSize) -> i64 {
    size.bytes().try_into().unwrap_or(i64::MAX)
}
