//! MQTT 3.1.1 on rumqttc.

use rumqttc::mqttbytes::Error as PacketError;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError as RumqttcError, Event as RumqttcEvent, EventLoop,
    LastWill, MqttOptions, MqttState, Packet, Publish, QoS, StateError, SubscribeFilter, SubscribeReasonCode,
    TlsConfiguration, Transport,
};

use crate::{
    Connected, ConnectionError, ConnectionOptions, Event, Full, MAX_PACKET, Message, Properties, ReasonCode,
    Subscription, Version,
};

pub(crate) struct Connection {
    event_loop: EventLoop,
    /// Why the connection has ended, until that is told.
    ended: Option<ConnectionError>,
    max_in_flight: u16,
    manual_acknowledgement: bool,
}

pub(crate) fn open(options: &ConnectionOptions) -> (AsyncClient, Connection) {
    let mut mqtt = MqttOptions::new(&options.client_id, options.rumqttc_host(), options.port);
    if let Some(tls) = &options.tls {
        mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(tls.clone())));
    }
    mqtt.set_keep_alive(options.keep_alive_seconds())
        .set_clean_session(options.clean_start)
        .set_manual_acks(options.manual_acknowledgement)
        .set_inflight(options.max_in_flight)
        .set_max_packet_size(options.max_packet, MAX_PACKET);
    if let Some(will) = &options.will {
        mqtt.set_last_will(LastWill::new(&will.topic, will.payload.clone(), will.qos, will.retain));
    }
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user, password);
    }
    let (sender, mut event_loop) = AsyncClient::new(mqtt, options.max_queued);
    // With Nagle's algorithm a round trip at QoS 1 takes 44 ms.
    event_loop.network_options.set_tcp_nodelay(true);
    event_loop.network_options.set_connection_timeout(options.connect_timeout_seconds());
    let connection = Connection {
        event_loop,
        ended: None,
        max_in_flight: options.max_in_flight,
        manual_acknowledgement: options.manual_acknowledgement,
    };
    (sender, connection)
}

impl Connection {
    pub(crate) async fn next(&mut self) -> Result<Event, ConnectionError> {
        let error = match self.ended.take() {
            Some(error) => error,
            None => match self.event_loop.poll().await {
                Ok(event) => return Ok(self.event(event)),
                Err(error) => error.into(),
            },
        };
        // What came before the end is handed out first.
        match self.event_loop.state.events.pop_front() {
            Some(event) => {
                self.ended = Some(error);
                Ok(self.event(event))
            }
            None => Err(error),
        }
    }

    pub(crate) fn resume_session(&mut self) {
        self.event_loop.mqtt_options.set_clean_session(false);
    }

    fn event(&mut self, event: RumqttcEvent) -> Event {
        match event {
            RumqttcEvent::Incoming(Packet::ConnAck(connack)) => {
                let session_present = connack.session_present;
                if !session_present {
                    // Of the old session rumqttc would keep a message that waits for a packet identifier.
                    self.event_loop.state = MqttState::new(self.max_in_flight, self.manual_acknowledgement);
                }
                Event::Connected(Box::new(Connected { session_present, ..Connected::default() }))
            }
            RumqttcEvent::Incoming(packet) => incoming(packet),
            RumqttcEvent::Outgoing(outgoing) => outgoing.into(),
        }
    }
}

fn incoming(packet: Packet) -> Event {
    let reason = || ReasonCode::Success.into();
    match packet {
        Packet::Publish(publish) => message(publish),
        Packet::PubAck(ack) => Event::PubAck { packet_id: ack.pkid, reason: reason() },
        Packet::PubRec(ack) => Event::PubRec { packet_id: ack.pkid, reason: reason() },
        Packet::PubComp(ack) => Event::PubComp { packet_id: ack.pkid, reason: reason() },
        Packet::SubAck(ack) => {
            let codes = ack.return_codes.into_iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => ReasonCode::granted(qos),
                SubscribeReasonCode::Failure => ReasonCode::Failure,
            });
            Event::SubAck { packet_id: ack.pkid, codes: codes.collect(), text: None }
        }
        Packet::UnsubAck(ack) => Event::UnsubAck { packet_id: ack.pkid, codes: Vec::new(), text: None },
        _ => Event::Progress,
    }
}

fn message(publish: Publish) -> Event {
    Event::Message {
        packet_id: (publish.qos != QoS::AtMostOnce).then_some(publish.pkid),
        dup: publish.dup,
        message: Message {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: Properties::default(),
        },
    }
}

impl From<RumqttcError> for ConnectionError {
    fn from(error: RumqttcError) -> ConnectionError {
        let protocol = |problem: &str| ConnectionError::protocol(Version::V311, problem);
        match error {
            RumqttcError::ConnectionRefused(code) => ConnectionError::Refused(reason_code(code).into()),
            RumqttcError::Io(error)
            | RumqttcError::MqttState(
                StateError::Io(error) | StateError::Deserialization(PacketError::Io(error)),
            ) => error.into(),
            RumqttcError::NetworkTimeout
            | RumqttcError::MqttState(StateError::AwaitPingResp | StateError::CollisionTimeout) => {
                ConnectionError::TimedOut
            }
            RumqttcError::FlushTimeout => ConnectionError::Stalled,
            RumqttcError::MqttState(StateError::ConnectionAborted) => ConnectionError::Closed,
            RumqttcError::Tls(error) => ConnectionError::tls(&error),
            RumqttcError::NotConnAck(_) => protocol("another packet than CONNACK"),
            RumqttcError::MqttState(error) => protocol(&error.to_string()),
            error => protocol(&error.to_string()),
        }
    }
}

fn reason_code(code: ConnectReturnCode) -> ReasonCode {
    match code {
        ConnectReturnCode::Success => ReasonCode::Success,
        ConnectReturnCode::RefusedProtocolVersion => ReasonCode::RefusedProtocolVersion,
        ConnectReturnCode::BadClientId => ReasonCode::BadClientId,
        ConnectReturnCode::ServiceUnavailable => ReasonCode::ServiceUnavailable,
        ConnectReturnCode::BadUserNamePassword => ReasonCode::BadUserNamePassword,
        ConnectReturnCode::NotAuthorized => ReasonCode::NotAuthorized,
    }
}

pub(crate) fn packet_size(message: &Message) -> usize {
    let mut publish = Publish::from_bytes(&message.topic, message.qos, message.payload.clone());
    // Any packet identifier has the same size, but none has none.
    publish.pkid = 1;
    publish.size()
}

pub(crate) fn publish(sender: &AsyncClient, message: Message) -> Result<(), Full> {
    sender.try_publish(message.topic, message.qos, message.retain, message.payload).map_err(|_| Full)
}

pub(crate) fn acknowledge(sender: &AsyncClient, packet_id: u16) -> Result<(), Full> {
    let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
    publish.pkid = packet_id;
    sender.try_ack(&publish).map_err(|_| Full)
}

pub(crate) fn subscribe(sender: &AsyncClient, subscriptions: &[Subscription]) -> Result<(), Full> {
    let filters = subscriptions
        .iter()
        .map(|Subscription { filter, qos, .. }| SubscribeFilter::new(filter.clone(), *qos));
    sender.try_subscribe_many(filters).map_err(|_| Full)
}
