//! The client against a broker that answers CONNECT with bytes of the test's choice.

use std::time::Duration;

use offload_mqtt::{ConnectionError, ConnectionOptions, Event, Message, ReasonCode, Version, open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A CONNACK that accepts the connection.
const ACCEPTED_V311: &[u8] = b"\x20\x02\x00\x00";
const ACCEPTED_V5: &[u8] = b"\x20\x03\x00\x00\x00";

/// A broker for one connection, which reads CONNECT alone; the connection lasts as long as what the task returns.
async fn broker(answer: &'static [u8]) -> (u16, JoinHandle<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connection = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0, "CONNECT comes");
        stream.write_all(answer).await.unwrap();
        stream
    });
    (port, connection)
}

/// What happens on a connection to a broker that answers CONNECT with these bytes and closes, up to its end.
async fn events(version: Version, answer: &'static [u8]) -> (Vec<Event>, ConnectionError) {
    let (port, connection) = broker(answer).await;
    let closing = tokio::spawn(async move {
        let mut stream = connection.await.unwrap();
        stream.shutdown().await.unwrap();
        stream
    });
    let (_sender, mut connection) =
        open(ConnectionOptions { version, ..ConnectionOptions::new("127.0.0.1", port, "me") });
    let mut events = Vec::new();
    let end = loop {
        match connection.next().await {
            Ok(event) => events.push(event),
            Err(error) => break error,
        }
    };
    drop(closing.await);
    (events, end)
}

#[tokio::test]
async fn what_came_before_the_end_is_handed_out_first() {
    for (version, answer, code, ended) in [
        (
            Version::V5,
            &b"\x20\x03\x00\x00\x00\x90\x04\x00\x01\x00\x01\xe0\x01\x8b"[..],
            ReasonCode::GrantedQoS1,
            "the broker ended the connection: ServerShuttingDown",
        ),
        (
            Version::V311,
            b"\x20\x02\x00\x00\x90\x03\x00\x01\x80",
            ReasonCode::Failure,
            "the broker closed the connection",
        ),
    ] {
        let (events, end) = events(version, answer).await;
        let expected = Event::SubAck { packet_id: 1, codes: vec![code], text: None };
        assert!(matches!(events[0], Event::Connected(_)), "{events:?}");
        assert_eq!(events[1], expected, "{version}");
        assert_eq!(end.to_string(), ended);
    }
}

#[tokio::test]
async fn a_refusal_says_why() {
    for (version, answer, expected) in [
        (
            Version::V5,
            &b"\x20\x0c\x00\x87\x09\x1f\x00\x06not me"[..],
            "the broker refused the connection: NotAuthorized: not me",
        ),
        (Version::V5, b"\x20\x02\x00\x01", "the broker refused the connection: UnsupportedProtocolVersion"),
        (Version::V5, b"\xe0\x01\x89", "the broker ended the connection: ServerBusy"),
        (Version::V5, b"\xd0\x00", "what came is not MQTT 5: another packet than CONNACK"),
        (Version::V5, b"", "the broker closed the connection"),
        (Version::V311, b"\x20\x02\x00\x01", "the broker refused the connection: RefusedProtocolVersion"),
        (Version::V311, b"\x20\x02\x00\x05", "the broker refused the connection: NotAuthorized"),
        (Version::V311, b"\xd0\x00", "what came is not MQTT 3.1.1: another packet than CONNACK"),
        (Version::V311, b"", "the broker closed the connection"),
    ] {
        let (events, end) = events(version, answer).await;
        assert_eq!((events, end.to_string().as_str()), (Vec::new(), expected));
    }
}

#[tokio::test]
async fn a_broker_that_reads_nothing_any_more_ends_the_connection() {
    for (version, accepted) in [(Version::V311, ACCEPTED_V311), (Version::V5, ACCEPTED_V5)] {
        let (port, served) = broker(accepted).await;
        let (sender, mut connection) = open(ConnectionOptions {
            version,
            connect_timeout: Duration::from_secs(1),
            write_timeout: Some(Duration::from_millis(50)),
            ..ConnectionOptions::new("127.0.0.1", port, "me")
        });
        // More than the system buffers for a connection.
        sender.publish(Message::new("t", vec![0; 64 << 20])).unwrap();
        let end = loop {
            match connection.next().await {
                Ok(event) => assert!(matches!(event, Event::Connected(_) | Event::Sent(_)), "{event:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(end, ConnectionError::Stalled, "{version}");
        drop(served.await);
    }
}

#[tokio::test]
async fn messages_come_while_the_broker_reads_nothing() {
    let (port, served) = broker(ACCEPTED_V5).await;
    let (sender, mut connection) = open(ConnectionOptions {
        // Ends a test that would wait for ever.
        write_timeout: Some(Duration::from_secs(30)),
        ..ConnectionOptions::new("127.0.0.1", port, "me")
    });
    // More than the system buffers for a connection.
    sender.publish(Message::new("t", vec![0; 64 << 20])).unwrap();
    assert!(matches!(connection.next().await, Ok(Event::Connected(_))));
    let mut stream = served.await.unwrap();
    let telling = tokio::spawn(async move {
        // It has begun to read, and so the client to write.
        stream.read_exact(&mut [0; 1024]).await.unwrap();
        stream.write_all(b"\x30\x05\x00\x01t\x00!").await.unwrap();
        stream
    });
    let message = loop {
        match connection.next().await.unwrap() {
            Event::Message { message, .. } => break message,
            event => assert!(matches!(event, Event::Sent(_)), "{event:?}"),
        }
    };
    assert_eq!(message.payload, &b"!"[..]);
    drop(telling.await);
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_given_up() {
    for version in [Version::V311, Version::V5] {
        let (port, served) = broker(b"").await;
        let connect_timeout = Duration::from_secs(1);
        let options =
            ConnectionOptions { version, connect_timeout, ..ConnectionOptions::new("127.0.0.1", port, "me") };
        let (_sender, mut connection) = open(options);
        assert_eq!(connection.next().await, Err(ConnectionError::TimedOut), "{version}");
        drop(served.await);
    }
}
