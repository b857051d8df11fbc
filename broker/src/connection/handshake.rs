//! CONNECT and CONNACK (sections 3.1 and 3.2).

use std::{future::poll_fn, io};

use bytes::BytesMut;
use rumqttd::protocol::ConnAckProperties;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::info;

use crate::{
    broker::Broker,
    connection::pending::PendingConnection,
    packet::{
        codec,
        connect::{self, ConnectPacket, Protocol},
        frame::{self, Kind},
    },
    quotas::input_budget::Reservation,
    reason::{Reason, Refusal, Violation},
    registry::{Connected, Ending},
    session::client::{ClientInfo, Login},
    throttle::{Cause, clip},
    transport::{peer::Peer, protocol_mismatch, stream::Stream},
    version::Version,
};

/// The first byte of a CONNECT.
const CONNECT: u8 = 0x10;
/// Bytes of a CONNECT for which no memory is reserved: one without a will, or with a small one.
const CONNECT_SHARE: usize = 4 * 1024;

/// Waits for CONNECT and answers it.
pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    pending: &PendingConnection,
    stream: &mut Stream<S>,
) -> Result<Opened, ConnectError> {
    let broker = &pending.broker;
    // Held as long as the packet is, which is until its sender is known.
    let (size, _reservation) = read(pending, stream).await?;
    broker.counters().received.packet();
    let packet = stream.input.split_to(size).freeze();
    stream.handled();
    let connect = match decode(broker, &packet) {
        Ok(connect) => connect,
        Err(refusal) => return Err(refusal.answer(pending, Asking::default(), &mut stream.output)),
    };
    match admit(pending, &connect).await {
        Ok(connected) => accept(broker, &mut stream.output, &connect, connected),
        Err(refusal) => {
            let asking =
                Asking { client_id: connect.client_id, user: connect.user_name, will: connect.will_topic() };
            Err(refusal.answer(pending, asking, &mut stream.output))
        }
    }
}

/// Reads until all of CONNECT is there; returns its size, and the memory that is reserved for it, if it is large.
/// The address that it comes from pays for that: the client is not known yet.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(
    pending: &PendingConnection,
    stream: &mut Stream<S>,
) -> Result<(usize, Option<Reservation>), ConnectError> {
    let broker = &pending.broker;
    let mut reservation = None;
    loop {
        match frame::header(&stream.input, broker.config().max_connect_size) {
            Ok(Some(header)) if header.kind != Kind::Connect => return Err(other(&stream.input)), // [MQTT-3.1.0-1]
            Ok(Some(header)) if stream.input.len() >= header.size => return Ok((header.size, reservation)),
            Ok(Some(header)) if header.size > CONNECT_SHARE && reservation.is_none() => {
                let requested = broker.quotas().input.reserve(&pending.account, header.size);
                reservation = Some(requested.await.map_err(|_| ConnectError::Lost)?);
                stream.input.reserve(header.size - stream.input.len());
            }
            Ok(_) if stream.input.first().is_none_or(|first| *first == CONNECT) => {}
            Err(violation) if stream.input.first().is_some_and(|first| *first == CONNECT) => {
                return Err(ConnectError::Unanswerable(violation.detail));
            }
            _ => return Err(other(&stream.input)),
        }
        if poll_fn(|cx| stream.poll_read(cx)).await? == 0 {
            return Err(ConnectError::Lost);
        }
    }
}

fn other(first: &[u8]) -> ConnectError {
    ConnectError::Unanswerable(protocol_mismatch::on_mqtt(first))
}

/// An accepted CONNECT, whose CONNACK is in the stream's output.
pub(crate) struct Opened {
    pub connected: Connected,
    pub version: Version,
    pub is_bridge: bool,
    /// Seconds, as agreed; 0 is none.
    pub keep_alive: u16,
}

/// Why there is no connection.
pub(crate) enum ConnectError {
    /// A CONNACK that says why is in the stream's output.
    Refused,
    /// No CONNACK would be understood; why, for the log.
    Unanswerable(&'static str),
    Lost,
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Unanswerable("TLS or WebSocket gone wrong"),
            _ => Self::Lost,
        }
    }
}

/// Why a CONNECT is not accepted.
enum Refused {
    Told(Version, Refusal),
    Unanswerable(&'static str),
}

/// Who is refused, by its own account.
#[derive(Default)]
struct Asking<'a> {
    client_id: &'a str,
    user: Option<&'a str>,
    will: Option<&'a str>,
}

impl Refused {
    /// 3.1.1 has no return code for what is malformed: it is closed [MQTT-4.8.0-1].
    fn malformed(version: Version, violation: Violation) -> Self {
        match version {
            Version::V311 => Self::Unanswerable(violation.detail),
            Version::V5 => Self::Told(version, Refusal::new(violation.reason, violation.detail)),
        }
    }

    fn answer(self, pending: &PendingConnection, asking: Asking<'_>, out: &mut BytesMut) -> ConnectError {
        let (version, Refusal { reason, cause: why }) = match self {
            Self::Told(version, refusal) => (version, refusal),
            Self::Unanswerable(why) => return ConnectError::Unanswerable(why),
        };
        let broker = &pending.broker;
        broker.counters().connection_refused(reason);
        let cause = if reason.is_failed_log_in() { Cause::LogIn } else { Cause::Refused };
        if let Some(left_out) = broker.throttle().line(cause) {
            let Peer { address: peer, transport, .. } = &pending.peer;
            let (client_id, user) = (clip(asking.client_id), asking.user.map(clip));
            let will = asking.will.map(clip);
            info!(%peer, ?transport, client_id, user, will, ?reason, cause = why, left_out, "connection refused");
        }
        codec::connack(false, reason, None, version, out);
        broker.counters().sent.packet();
        ConnectError::Refused
    }
}

/// Takes a whole CONNECT apart.
fn decode<'a>(broker: &Broker, packet: &'a [u8]) -> Result<ConnectPacket<'a>, Refused> {
    let frame = match frame::next(packet, broker.config().max_connect_size) {
        Ok(Some(frame)) => frame,
        Ok(None) => return Err(Refused::Unanswerable("half a CONNECT")),
        Err(violation) => return Err(Refused::Unanswerable(violation.detail)),
    };
    let unsupported =
        |version, cause| Refused::Told(version, Refusal::new(Reason::UnsupportedProtocolVersion, cause));
    let version = match connect::protocol(frame.body) {
        Ok(Protocol::Offered(version)) => version,
        Ok(Protocol::Older) => return Err(unsupported(Version::V311, "MQTT before 3.1.1 is not offered")),
        Ok(Protocol::Newer) => return Err(unsupported(Version::V5, "MQTT after 5 is not offered")),
        Err(violation) => return Err(Refused::Unanswerable(violation.detail)),
    };
    ConnectPacket::read(frame.body, version, broker.config())
        .map_err(|violation| Refused::malformed(version, violation))
}

/// Finds out who the client is and gives it its session.
async fn admit(pending: &PendingConnection, packet: &ConnectPacket<'_>) -> Result<Connected, Refused> {
    let PendingConnection { broker, peer, .. } = pending;
    let version = packet.version;
    let told = |refusal| Refused::Told(version, refusal);
    let refused = |reason, cause| Err(told(Refusal::new(reason, cause)));
    if pending.over_limit {
        let cause = "there are max_connections, or max_connections_per_address from its address";
        return refused(Reason::QuotaExceeded, cause);
    }
    if packet.authentication_method {
        return refused(Reason::BadAuthenticationMethod, "authentication methods are not offered");
    }
    if packet.client_id.len() > broker.config().max_client_id_length {
        let cause = "the client id is longer than max_client_id_length";
        return refused(Reason::ClientIdentifierNotValid, cause);
    }
    let login = Login {
        client_id: packet.client_id.to_owned(),
        user_name: packet.user_name.map(str::to_owned),
        password: packet.password.map(<[u8]>::to_vec),
        certificate: peer.certificate.clone(),
        peer: peer.address,
        transport: peer.transport,
        version,
        origin: peer.origin.clone(),
    };
    let identity = broker.application().authenticate(login).await.map_err(|Refusal { reason, cause }| {
        // A refusal for a reason that says success must not let anyone in.
        told(Refusal::new(if reason.is_error() { reason } else { Reason::NotAuthorized }, cause))
    })?;
    let mut connect =
        packet.decode(broker.config()).map_err(|violation| Refused::malformed(version, violation))?;
    let client = broker.registry().client(&mut connect, version, peer, identity).map_err(told)?;
    if let Some(will) = &connect.will {
        broker.check_will(will, &client).map_err(told)?;
    }
    let confirm = |client: &ClientInfo| broker.application().confirm(client);
    let (mut connected, due_will) = broker.registry().connect(connect, client, confirm).map_err(told)?;
    if let Some(due) = due_will {
        broker.publish_will_to_all(due);
    }
    if let Some(stored) = connected.stored.take() {
        let attached = Attached { broker, connected: Some(connected) };
        if stored.await.is_err() {
            return refused(Reason::ServerUnavailable, "the storage has failed, and the session is to stay");
        }
        connected = attached.detach();
    }
    Ok(connected)
}

/// A session that its connection does not serve yet. Dropped, the session is without it.
struct Attached<'a> {
    broker: &'a Broker,
    connected: Option<Connected>,
}

impl Attached<'_> {
    fn detach(mut self) -> Connected {
        self.connected.take().expect("it is taken once")
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if let Some(Connected { session, connection_id, .. }) = &self.connected {
            let ending = Ending { publish_will: false, session_expiry: None };
            self.broker.registry().disconnect(session, *connection_id, ending);
        }
    }
}

/// Writes the CONNACK that says yes.
fn accept(
    broker: &Broker,
    out: &mut BytesMut,
    connect: &ConnectPacket<'_>,
    connected: Connected,
) -> Result<Opened, ConnectError> {
    let version = connect.version;
    let keep_alive = keep_alive(broker, connect);
    let properties = (version == Version::V5).then(|| {
        let config = broker.config();
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
        let ending = Ending { publish_will: false, session_expiry: None };
        broker.registry().disconnect(&connected.session, connected.connection_id, ending);
        return Err(ConnectError::Unanswerable("CONNACK is larger than the packets that it takes"));
    }
    broker.counters().sent.packet();
    Ok(Opened { connected, version, is_bridge: connect.is_bridge, keep_alive })
}

fn keep_alive(broker: &Broker, connect: &ConnectPacket<'_>) -> u16 {
    match (connect.version, broker.config().max_keep_alive, connect.keep_alive) {
        (Version::V5, maximum @ 1.., 0) => maximum,
        (Version::V5, maximum @ 1.., wanted) => wanted.min(maximum),
        (_, _, wanted) => wanted,
    }
}
