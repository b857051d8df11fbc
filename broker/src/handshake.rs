//! CONNECT and CONNACK (sections 3.1 and 3.2).

use std::{future::poll_fn, io};

use bytes::{Buf, BytesMut};
use rumqttd::protocol::ConnAckProperties;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::info;

use crate::{
    application::{Login, Version},
    arrival::Arrival,
    codec::{self, Connect},
    core::{Connected, Core, Ending, clip},
    frame::{self, Kind},
    guard::{self, Protocol},
    reason::Reason,
    stream::Stream,
    transport::Peer,
};

/// An accepted CONNECT, whose CONNACK is in the stream's output.
pub(crate) struct Opened {
    pub connected: Connected,
    pub version: Version,
    /// Seconds, as agreed; 0 is none.
    pub keep_alive: u16,
}

/// Why there is no connection.
pub(crate) enum Unopened {
    /// A CONNACK that says why is in the stream's output.
    Refused,
    /// No CONNACK would be understood.
    Unanswerable,
    Lost,
}

impl From<io::Error> for Unopened {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Unanswerable, // by TLS or WebSocket
            _ => Self::Lost,
        }
    }
}

/// Waits for CONNECT and answers it.
pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    arrival: &Arrival,
    stream: &mut Stream<S>,
) -> Result<Opened, Unopened> {
    let core = &arrival.core;
    let size = loop {
        match frame::next(&stream.input, core.config.max_connect_size) {
            Ok(Some(frame)) if frame.kind == Kind::Connect => break frame.size,
            Ok(None) if stream.input.first().is_none_or(|first| first >> 4 == 1) => {}
            _ => return Err(Unopened::Unanswerable), // [MQTT-3.1.0-1]
        }
        if poll_fn(|cx| stream.poll_read(cx)).await? == 0 {
            return Err(Unopened::Lost);
        }
    };
    core.counters.received.packet();
    let connect = decode(core, &stream.input);
    stream.input.advance(size);
    stream.handled();
    let (version, mut connect) = match connect {
        Ok(decoded) => decoded,
        Err(refusal) => return Err(refusal.answer(arrival, &mut stream.output)),
    };
    let user = connect.user_name.clone();
    match admit(arrival, version, &mut connect).await {
        Ok(connected) => accept(core, &mut stream.output, version, &connect, connected),
        Err(reason) => {
            let refusal = Refusal::Told(version, reason, Asking { client_id: connect.client_id, user });
            Err(refusal.answer(arrival, &mut stream.output))
        }
    }
}

/// Why a CONNECT is not accepted.
enum Refusal {
    Told(Version, Reason, Asking),
    Unanswerable,
}

/// Who is refused, as he says.
#[derive(Default)]
struct Asking {
    client_id: String,
    user: Option<String>,
}

impl Refusal {
    fn answer(self, arrival: &Arrival, out: &mut BytesMut) -> Unopened {
        let Self::Told(version, reason, asking) = self else { return Unopened::Unanswerable };
        let core = &arrival.core;
        core.counters.connection_refused(reason);
        if let Some(left_out) = core.throttle.line() {
            let Peer { address: peer, transport, .. } = &arrival.peer;
            let (client_id, user) = (clip(&asking.client_id), asking.user.as_deref().map(clip));
            info!(%peer, ?transport, client_id, user, ?reason, left_out, "connection refused");
        }
        codec::connack(false, reason, None, version, out);
        core.counters.sent.packet();
        Unopened::Refused
    }
}

/// Decodes the CONNECT at the start of the input.
fn decode(core: &Core, input: &[u8]) -> Result<(Version, Connect), Refusal> {
    let Ok(Some(frame)) = frame::next(input, core.config.max_connect_size) else {
        return Err(Refusal::Unanswerable);
    };
    let told = |version, reason| Refusal::Told(version, reason, Asking::default());
    let version = match guard::protocol(frame.body) {
        Ok(Protocol::Offered(version)) => version,
        Ok(Protocol::Older) => return Err(told(Version::V311, Reason::UnsupportedProtocolVersion)),
        Ok(Protocol::Newer) => return Err(told(Version::V5, Reason::UnsupportedProtocolVersion)),
        Err(_) => return Err(Refusal::Unanswerable),
    };
    match codec::connect(frame.body, version, &core.config) {
        Ok(connect) => Ok((version, connect)),
        // 3.1.1 has no return code for what is malformed: it is closed [MQTT-4.8.0-1].
        Err(_) if version == Version::V311 => Err(Refusal::Unanswerable),
        Err(violation) => Err(told(version, violation.reason)),
    }
}

/// Finds out who the client is and gives it its session.
async fn admit(arrival: &Arrival, version: Version, connect: &mut Connect) -> Result<Connected, Reason> {
    let Arrival { core, peer, .. } = arrival;
    if arrival.over_limit {
        return Err(Reason::QuotaExceeded);
    }
    if connect.authentication_method {
        return Err(Reason::BadAuthenticationMethod);
    }
    let login = Login {
        client_id: connect.client_id.clone(),
        user_name: connect.user_name.take(),
        password: connect.password.take(),
        certificate: peer.certificate.clone(),
        peer: peer.address,
        transport: peer.transport,
        version,
        origin: peer.origin.clone(),
    };
    let identity = core.application.authenticate(login).await.map_err(|reason| {
        // A refusal for a reason that says success must not let anyone in.
        if reason.is_error() { reason } else { Reason::NotAuthorized }
    })?;
    core.connect(connect, version, peer, identity)
}

/// Writes the CONNACK that says yes.
fn accept(
    core: &Core,
    out: &mut BytesMut,
    version: Version,
    connect: &Connect,
    connected: Connected,
) -> Result<Opened, Unopened> {
    let keep_alive = keep_alive(core, version, connect);
    let properties = (version == Version::V5).then(|| {
        let config = &core.config;
        ConnAckProperties {
            session_expiry_interval: (connect.session_expiry != Some(connected.session_expiry))
                .then_some(connected.session_expiry),
            receive_max: Some(config.receive_maximum),
            max_packet_size: u32::try_from(config.max_packet_size).ok(),
            assigned_client_identifier: connected
                .client
                .assigned
                .then(|| connected.client.client_id.to_string()),
            topic_alias_max: Some(config.topic_alias_maximum),
            shared_subscription_available: Some(0),
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
            ..ConnAckProperties::default()
        }
    });
    codec::connack(connected.session_present, Reason::Success, properties, version, out);
    let max_packet = connected.max_packet;
    if out.len() > max_packet {
        out.clear(); // [MQTT-3.1.2-24]
        core.disconnect(
            &connected.session,
            connected.link,
            Ending { publish_will: false, session_expiry: None },
        );
        return Err(Unopened::Unanswerable);
    }
    core.counters.sent.packet();
    Ok(Opened { connected, version, keep_alive })
}

fn keep_alive(core: &Core, version: Version, connect: &Connect) -> u16 {
    match (version, core.config.max_keep_alive, connect.keep_alive) {
        (Version::V5, maximum @ 1.., 0) => maximum,
        (Version::V5, maximum @ 1.., wanted) => wanted.min(maximum),
        (_, _, wanted) => wanted,
    }
}
