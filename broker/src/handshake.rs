//! CONNECT and CONNACK (sections 3.1 and 3.2).

use std::{future::poll_fn, io, net::SocketAddr};

use bytes::Buf;
use rumqttd::protocol::ConnAckProperties;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::info;

use crate::{
    application::Version,
    codec::{self, Connect},
    core::{Connected, Core, clip},
    frame::{self, Kind},
    guard::{self, Protocol},
    reason::Reason,
    stats::count,
    stream::Stream,
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
    NotMqtt,
    Lost,
}

impl From<io::Error> for Unopened {
    fn from(_: io::Error) -> Self {
        Self::Lost
    }
}

/// Waits for CONNECT and answers it; `full` if the broker takes no more connections.
pub(crate) async fn open<S: AsyncRead + AsyncWrite + Unpin>(
    core: &Core,
    stream: &mut Stream<S>,
    peer: SocketAddr,
    full: bool,
) -> Result<Opened, Unopened> {
    let size = loop {
        match frame::next(&stream.input, core.config.max_connect_size) {
            Ok(Some(frame)) if frame.kind == Kind::Connect => break frame.size,
            Ok(None) if stream.input.first().is_none_or(|first| first >> 4 == 1) => {}
            _ => return Err(Unopened::NotMqtt), // [MQTT-3.1.0-1]
        }
        if poll_fn(|cx| stream.poll_read(cx)).await? == 0 {
            return Err(Unopened::Lost);
        }
    };
    let answer = answer(core, stream, peer, full);
    stream.input.advance(size);
    stream.handled();
    answer
}

/// Answers the CONNECT at the start of the input.
fn answer<S>(core: &Core, stream: &mut Stream<S>, peer: SocketAddr, full: bool) -> Result<Opened, Unopened> {
    let Ok(Some(frame)) = frame::next(&stream.input, core.config.max_connect_size) else {
        return Err(Unopened::NotMqtt);
    };
    let out = &mut stream.output;
    let mut refuse = |version, reason: Reason, client_id: &str| {
        count(&core.counters.connections_refused);
        if let Some(left_out) = core.throttle.line() {
            info!(%peer, client_id = clip(client_id), ?reason, left_out, "connection refused");
        }
        codec::connack(false, reason, None, version, out);
        Unopened::Refused
    };
    let version = match guard::protocol(frame.body) {
        Ok(Protocol::Offered(version)) => version,
        Ok(Protocol::Older) => return Err(refuse(Version::V311, Reason::UnsupportedProtocolVersion, "")),
        Ok(Protocol::Newer) => return Err(refuse(Version::V5, Reason::UnsupportedProtocolVersion, "")),
        Err(_) => return Err(Unopened::NotMqtt),
    };
    let mut connect = match codec::connect(frame.body, version, &core.config) {
        Ok(connect) => connect,
        // 3.1.1 has no return code for what is malformed: it is closed [MQTT-4.8.0-1].
        Err(_) if version == Version::V311 => return Err(Unopened::NotMqtt),
        Err(violation) => return Err(refuse(version, violation.reason, "")),
    };
    if full {
        return Err(refuse(version, Reason::QuotaExceeded, &connect.client_id));
    }
    if connect.authentication_method {
        return Err(refuse(version, Reason::BadAuthenticationMethod, &connect.client_id));
    }
    let wanted_expiry = connect.session_expiry;
    let connected = match core.connect(&mut connect, version, peer) {
        Ok(connected) => connected,
        Err(reason) => return Err(refuse(version, reason, &connect.client_id)),
    };
    let keep_alive = keep_alive(core, version, &connect);
    let properties = (version == Version::V5).then(|| {
        let config = &core.config;
        ConnAckProperties {
            session_expiry_interval: (wanted_expiry != Some(connected.session_expiry))
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
    Ok(Opened { connected, version, keep_alive })
}

fn keep_alive(core: &Core, version: Version, connect: &Connect) -> u16 {
    match (version, core.config.max_keep_alive, connect.keep_alive) {
        (Version::V5, maximum @ 1.., 0) => maximum,
        (Version::V5, maximum @ 1.., wanted) => wanted.min(maximum),
        (_, _, wanted) => wanted,
    }
}
