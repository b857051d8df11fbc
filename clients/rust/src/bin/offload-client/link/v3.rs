//! The connection in MQTT 3.1.1.

use offload_client::Options;
use rumqttc::{
    AsyncClient, ConnAck, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions,
    Outgoing, Packet, Publish, StateError, SubscribeReasonCode, Transport,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{AckPacket, Acknowledgement, Code, Connection, KEEP_ALIVE, MAX_REQUESTS, describe_io, hand_out};
use crate::link;
use crate::message::Message;

/// Starts the task that owns the connection.
pub fn start(
    options: &Options,
    transport: Transport,
    events: mpsc::Sender<link::Event>,
) -> (AsyncClient, JoinHandle<()>) {
    let mut mqtt = MqttOptions::new(&options.client_id, options.link_host(), options.port);
    mqtt.set_transport(transport);
    mqtt.set_keep_alive(KEEP_ALIVE);
    let max_packet = usize::try_from(options.max_answer).unwrap_or(usize::MAX);
    mqtt.set_max_packet_size(max_packet, max_packet);
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user, password);
    }
    let (client, mut connection) = AsyncClient::new(mqtt, MAX_REQUESTS);
    let mut network = NetworkOptions::new();
    // With Nagle's algorithm a round trip at QoS 1 takes 44 ms.
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(options.connect_timeout.as_secs().max(1));
    connection.set_network_options(network);
    (client, tokio::spawn(hand_out(connection, options.clone(), events)))
}

impl Connection for EventLoop {
    type Event = Event;
    type Error = ConnectionError;

    fn poll(&mut self) -> impl Future<Output = Result<Event, ConnectionError>> + Send {
        EventLoop::poll(self)
    }

    fn left_over(&mut self) -> Option<Event> {
        self.state.events.pop_front()
    }

    fn translate(event: Event) -> Option<link::Event> {
        translate(event)
    }

    fn refusal(error: &ConnectionError) -> Option<Acknowledgement> {
        match error {
            ConnectionError::ConnectionRefused(code) => Some(connack(*code, Vec::new())),
            _ => None,
        }
    }

    fn describe(error: &ConnectionError) -> String {
        describe(error)
    }
}

fn translate(event: Event) -> Option<link::Event> {
    let acknowledged = |packet, id, codes| {
        link::Event::Acknowledged(Acknowledgement { packet, id, codes, details: Vec::new() })
    };
    Some(match event {
        Event::Outgoing(Outgoing::Publish(id)) => link::Event::Sent(link::Packet::Publish, id),
        Event::Outgoing(Outgoing::Subscribe(id)) => link::Event::Sent(link::Packet::Subscribe, id),
        Event::Outgoing(Outgoing::Unsubscribe(id)) => link::Event::Sent(link::Packet::Unsubscribe, id),
        Event::Outgoing(Outgoing::Disconnect) => link::Event::Sent(link::Packet::Disconnect, 0),
        Event::Incoming(Packet::ConnAck(ConnAck { session_present, code })) => {
            let present = if session_present { "yes" } else { "no" };
            link::Event::Acknowledged(connack(code, vec![format!("session present: {present}")]))
        }
        Event::Incoming(Packet::PubAck(ack)) => acknowledged(AckPacket::PubAck, ack.pkid, Vec::new()),
        Event::Incoming(Packet::PubRec(ack)) => acknowledged(AckPacket::PubRec, ack.pkid, Vec::new()),
        Event::Incoming(Packet::PubComp(ack)) => acknowledged(AckPacket::PubComp, ack.pkid, Vec::new()),
        Event::Incoming(Packet::UnsubAck(ack)) => acknowledged(AckPacket::UnsubAck, ack.pkid, Vec::new()),
        Event::Incoming(Packet::SubAck(ack)) => {
            let codes = ack.return_codes.into_iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => Code::granted(qos as u8),
                SubscribeReasonCode::Failure => {
                    Code { number: 0x80, name: "Failure".to_owned(), refused: true }
                }
            });
            acknowledged(AckPacket::SubAck, ack.pkid, codes.collect())
        }
        Event::Incoming(Packet::Publish(publish)) => link::Event::Message(message(publish)),
        _ => return None,
    })
}

fn connack(code: ConnectReturnCode, details: Vec<String>) -> Acknowledgement {
    let refused = code != ConnectReturnCode::Success;
    let code = Code { number: code as u8, name: format!("{code:?}"), refused };
    Acknowledgement { packet: AckPacket::ConnAck, id: 0, codes: vec![code], details }
}

fn message(publish: Publish) -> Message {
    Message {
        topic: publish.topic,
        payload: publish.payload,
        qos: publish.qos as u8,
        retain: publish.retain,
        properties: Vec::new(),
    }
}

fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(_) => "the broker refused it".to_owned(),
        ConnectionError::Io(error) | ConnectionError::MqttState(StateError::Io(error)) => describe_io(error),
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".to_owned()
        }
        ConnectionError::Tls(error) => offload_tls::explain(error),
        other => other.to_string(),
    }
}
