//! The client against real brokers, a Mosquitto and ours, in both versions of MQTT.

// The other functions are for the tests of the gateway.
#[allow(dead_code)]
#[path = "../../runtime/tests/external_mqtt/mosquitto.rs"]
mod mosquitto;

use std::sync::Arc;
use std::time::Duration;

use mosquitto::Mosquitto;
use offload_broker::{Broker, Config, NoApplication, Transport};
use offload_mqtt::{
    Connection, ConnectionError, ConnectionOptions, Event, Message, PacketSender, Properties, QoS, Reason,
    ReasonCode, Sent, Subscription, Version, open,
};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The longest that anything here may take: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
const VERSIONS: [Version; 2] = [Version::V311, Version::V5];

/// Runs a test at both brokers in both versions.
async fn at_each_broker(test: impl AsyncFn(ConnectionOptions)) {
    let mosquitto = Mosquitto::start();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = listener.local_addr().unwrap().port();
    let broker = Broker::new(Config::default(), Arc::new(NoApplication));
    let serving =
        tokio::spawn(async move { broker.serve(listener, Transport::Tcp, CancellationToken::new()).await });
    for port in [mosquitto.port, ours] {
        for version in VERSIONS {
            test(ConnectionOptions {
                version,
                ..ConnectionOptions::new("127.0.0.1", port, format!("me-{version}"))
            })
            .await;
        }
    }
    serving.abort();
}

/// The next event that is what is wanted.
async fn next<T>(connection: &mut Connection, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = wanted(connection.next().await.unwrap()) {
                return found;
            }
        }
    };
    timeout(PATIENCE, found).await.expect("it comes in time")
}

/// What ends the connection.
async fn end(connection: &mut Connection) -> ConnectionError {
    let end = async {
        loop {
            if let Err(error) = connection.next().await {
                return error;
            }
        }
    };
    timeout(PATIENCE, end).await.expect("it ends in time")
}

/// A connection with a subscription at QoS 2, and whether the broker had its session.
async fn subscribed(options: ConnectionOptions, filter: &str) -> (PacketSender, Connection, bool) {
    let (sender, mut connection) = open(options);
    sender.subscribe(&[Subscription::new(filter, QoS::ExactlyOnce)]).unwrap();
    let connected = |event| match event {
        Event::Connected(connected) => Some(connected.session_present),
        _ => None,
    };
    let session_present = next(&mut connection, connected).await;
    let codes = next(&mut connection, |event| match event {
        Event::SubAck { codes, .. } => Some(codes),
        _ => None,
    });
    assert_eq!(codes.await, [ReasonCode::GrantedQoS2]);
    (sender, connection, session_present)
}

/// A message that comes: itself, its packet identifier, and whether it was sent before.
fn message(event: Event) -> Option<(Message, Option<u16>, bool)> {
    match event {
        Event::Message { message, packet_id, dup } => Some((message, packet_id, dup)),
        _ => None,
    }
}

#[tokio::test]
async fn a_message_comes_back_with_all_that_its_version_carries() {
    at_each_broker(async |options| {
        let version = options.version;
        let (sender, mut connection, _) = subscribed(options, "a/+").await;
        let properties = Properties {
            response_topic: Some("a/answer".to_owned()),
            correlation_data: Some("7".into()),
            content_type: Some("text/plain".to_owned()),
            user_properties: vec![("k".to_owned(), "1".to_owned()), ("k".to_owned(), "2".to_owned())],
        };
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let sent = Message { qos, properties: properties.clone(), ..Message::new("a/b", "5 7") };
            sender.publish(sent.clone()).unwrap();
            let (mut written, mut acknowledged, mut received) = (None, qos == QoS::AtMostOnce, None);
            while !acknowledged || received.is_none() {
                let success = |reason: &Reason| assert_eq!(reason.code, ReasonCode::Success);
                next(&mut connection, |event| {
                    match event {
                        Event::Sent(Sent::Publish(packet_id)) => written = Some(packet_id),
                        Event::PubAck { packet_id, reason } => {
                            success(&reason);
                            acknowledged = qos == QoS::AtLeastOnce && written == Some(packet_id);
                        }
                        Event::PubRec { packet_id, reason } => {
                            success(&reason);
                            assert_eq!(written, Some(packet_id));
                        }
                        Event::PubComp { packet_id, reason } => {
                            success(&reason);
                            acknowledged = qos == QoS::ExactlyOnce && written == Some(packet_id);
                        }
                        event => received = message(event).or(received.take()),
                    }
                    Some(())
                })
                .await;
            }
            let (received, packet_id, dup) = received.unwrap();
            let properties =
                if version == Version::V5 { sent.properties.clone() } else { Properties::default() };
            assert_eq!(received, Message { properties, ..sent }, "{version}");
            assert_eq!((packet_id.is_some(), dup), (qos != QoS::AtMostOnce, false));
        }
        sender.unsubscribe("a/+").unwrap();
        next(&mut connection, |event| matches!(event, Event::UnsubAck { .. }).then_some(())).await;
        sender.disconnect().unwrap();
        next(&mut connection, |event| (event == Event::Sent(Sent::Disconnect)).then_some(())).await;
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_not_acknowledged_is_delivered_again() {
    at_each_broker(async |options| {
        let resuming = ConnectionOptions {
            clean_start: false,
            session_expiry: PATIENCE,
            manual_acknowledgement: true,
            ..options.clone()
        };
        let (sender, mut connection, session_present) = subscribed(resuming.clone(), "held").await;
        assert!(!session_present);
        for payload in ["first", "second"] {
            sender.publish(Message::new("held", payload)).unwrap();
        }
        let (first, packet_id, _) = next(&mut connection, message).await;
        assert_eq!(first.payload, "first");
        next(&mut connection, message).await;
        sender.acknowledge(packet_id.unwrap()).unwrap();
        // What is written before the DISCONNECT has reached the broker when it reads that.
        sender.disconnect().unwrap();
        next(&mut connection, |event| (event == Event::Sent(Sent::Disconnect)).then_some(())).await;
        drop(connection);

        let (sender, mut connection) = open(resuming);
        let (again, packet_id, dup) = next(&mut connection, message).await;
        assert_eq!((&again.payload[..], dup), (&b"second"[..], true));
        sender.acknowledge(packet_id.unwrap()).unwrap();
        sender.disconnect().unwrap();
        next(&mut connection, |event| (event == Event::Sent(Sent::Disconnect)).then_some(())).await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_made_again_resumes_its_session() {
    at_each_broker(async |options| {
        // In MQTT 3.1.1 a session that began clean ends with its connection.
        let clean_start = options.version == Version::V5;
        let lasting = ConnectionOptions { clean_start, session_expiry: PATIENCE, ..options };
        let (_sender, mut connection, _) = subscribed(lasting.clone(), "kept").await;
        connection.resume_session();
        // Another client of this id ends the connection, and the session stays.
        let (other, mut others) = open(ConnectionOptions { clean_start: false, ..lasting });
        next(&mut others, |event| matches!(event, Event::Connected(_)).then_some(())).await;
        let error = end(&mut connection).await;
        assert!(error.is_taken_over() || error.is_closed(), "{error}");
        other.disconnect().unwrap();
        next(&mut others, |event| (event == Event::Sent(Sent::Disconnect)).then_some(())).await;

        let session_present = next(&mut connection, |event| match event {
            Event::Connected(connected) => Some(connected.session_present),
            _ => None,
        });
        assert!(session_present.await);
    })
    .await;
}

#[tokio::test]
async fn a_will_is_published_for_a_client_that_is_gone_without_a_word() {
    at_each_broker(async |options| {
        let will = Some(Message::new("gone", options.client_id.clone()));
        let (_, mut mourner, _) =
            subscribed(ConnectionOptions { client_id: "mourner".to_owned(), ..options.clone() }, "gone")
                .await;
        let (_sender, mut connection) = open(ConnectionOptions { will: will.clone(), ..options });
        next(&mut connection, |event| matches!(event, Event::Connected(_)).then_some(())).await;
        drop(connection);
        let (published, ..) = next(&mut mourner, message).await;
        assert_eq!(Some(published), will);
    })
    .await;
}

#[tokio::test]
async fn a_packet_over_the_limit_is_kept_back_where_the_broker_knows_of_it() {
    at_each_broker(async |options| {
        let limited = ConnectionOptions { max_packet: 1_000, ..options };
        let version = limited.version;
        let (sender, mut connection, _) = subscribed(limited, "large").await;
        sender.publish(Message::new("large", vec![b'x'; 2_000])).unwrap();
        sender.publish(Message::new("large", "small")).unwrap();
        match version {
            Version::V5 => assert_eq!(next(&mut connection, message).await.0.payload, "small"),
            Version::V311 => {
                let error = end(&mut connection).await;
                assert!(matches!(error, ConnectionError::Protocol { .. }), "{error:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_password_is_refused() {
    let mosquitto = Mosquitto::with_user("alice", "secret");
    for version in VERSIONS {
        let stranger =
            ConnectionOptions { version, ..ConnectionOptions::new("127.0.0.1", mosquitto.port, "me") };
        let known = Some(("alice".to_owned(), "secret".to_owned()));
        let (_sender, mut connection) = open(stranger.clone());
        assert_eq!(end(&mut connection).await, ConnectionError::Refused(ReasonCode::NotAuthorized.into()));
        let (_sender, mut connection) = open(ConnectionOptions { credentials: known, ..stranger });
        next(&mut connection, |event| matches!(event, Event::Connected(_)).then_some(())).await;
    }
}
