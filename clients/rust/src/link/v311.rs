//! MQTT 3.1.1: no properties, no reasons, and a new session for every connection.

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, MqttState,
    NetworkOptions, Outgoing, Packet, Publish, QoS, StateError, SubscribeReasonCode, Transport, mqttbytes,
};

use super::{Acknowledgement, Failure, Full, Happened, Incoming, Message, NO_ANSWERS};
use crate::client::LARGEST_PACKET;
use crate::options::KEEP_ALIVE;
use crate::{Error, Options};

pub(crate) struct Events {
    events: EventLoop,
    max_in_flight: u16,
}

pub(super) fn open(options: &Options, transport: Transport, capacity: usize) -> (AsyncClient, Events) {
    let mut mqtt = MqttOptions::new(&options.client_id, options.link_host(), options.port);
    mqtt.set_transport(transport);
    mqtt.set_keep_alive(KEEP_ALIVE);
    mqtt.set_clean_session(true);
    mqtt.set_inflight(options.max_in_flight);
    mqtt.set_max_packet_size(options.max_answer as usize, LARGEST_PACKET);
    if let Some((user, password)) = &options.credentials {
        mqtt.set_credentials(user, password);
    }
    let (client, mut events) = AsyncClient::new(mqtt, capacity);
    let mut network = NetworkOptions::new();
    // With Nagle's algorithm a round trip at QoS 1 takes 44 ms.
    network.set_tcp_nodelay(true);
    network.set_connection_timeout(options.connect_timeout.as_secs().max(1));
    events.set_network_options(network);
    (client, Events { events, max_in_flight: options.max_in_flight })
}

impl Events {
    pub(super) async fn poll(&mut self) -> Result<Happened, Failure> {
        Ok(match self.events.poll().await.map_err(failure)? {
            Event::Incoming(Packet::ConnAck(_)) => {
                // Of the old session rumqttc would keep a message that waits for a packet id.
                let queued = std::mem::take(&mut self.events.state.events);
                self.events.state = MqttState::new(self.max_in_flight, false);
                self.events.state.events = queued;
                Happened::Connected { session_present: false, max_packet: None, has_qos_1: true }
            }
            Event::Incoming(Packet::SubAck(suback)) => {
                Happened::Subscribed(match suback.return_codes.first() {
                    Some(SubscribeReasonCode::Success(_)) => Ok(()),
                    Some(SubscribeReasonCode::Failure) => Err(Error::Unauthorized(NO_ANSWERS.to_owned())),
                    None => Err(Error::Closed("the broker's SUBACK is empty".to_owned())),
                })
            }
            Event::Incoming(Packet::PubAck(puback)) => {
                Happened::Acknowledged(puback.pkid, Acknowledgement::Taken)
            }
            Event::Incoming(Packet::Publish(publish)) => Happened::Message(Incoming {
                payload: publish.payload,
                correlation: None,
                user_properties: Vec::new(),
            }),
            Event::Outgoing(Outgoing::Publish(packet_id)) => Happened::Written(packet_id),
            Event::Outgoing(Outgoing::Disconnect) => Happened::Disconnected,
            _ => Happened::Other,
        })
    }
}

pub(super) fn packet_size(message: &Message) -> usize {
    let mut publish = Publish::from_bytes(message.topic.as_str(), QoS::AtLeastOnce, message.payload.clone());
    // Any packet id has the same size, but none has none.
    publish.pkid = 1;
    publish.size()
}

pub(super) fn try_publish(client: &AsyncClient, message: Message) -> Result<(), Full> {
    client.try_publish(message.topic, QoS::AtLeastOnce, false, message.payload).map_err(|_| Full)
}

fn failure(error: ConnectionError) -> Failure {
    match error {
        ConnectionError::ConnectionRefused(ConnectReturnCode::BadUserNamePassword) => {
            Failure::wrong_password(None)
        }
        ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized) => Failure::not_let_in(None),
        ConnectionError::ConnectionRefused(code) => {
            Failure::Refused(format!("the broker refused the connection: {code:?}"))
        }
        ConnectionError::Io(error)
        | ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        ) => Failure::io(&error),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => Failure::TimedOut,
        ConnectionError::MqttState(StateError::ConnectionAborted) => Failure::closed(),
        ConnectionError::Tls(error) => Failure::Lost(offload_tls::explain(&error)),
        other => Failure::Lost(other.to_string()),
    }
}
