//! Connections at QoS 0, against brokers that say what a test wants.

use std::time::Duration;

use offload_mqtt::{
    ConnectionError, ConnectionOptions, Opened, QoS, Qos0Connection, ReasonCode, Subscription,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The longest that anything here may take: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a broker that reads takes to read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// A CONNACK that accepts the connection, and a SUBACK that grants the subscription.
const CONNACK: &[u8] = b"\x20\x03\x00\x00\x00";
/// One that wants to be asked each second whether the broker is there.
const CONNACK_EACH_SECOND: &[u8] = b"\x20\x06\x00\x00\x03\x13\x00\x01";
const SUBACK: &[u8] = b"\x90\x04\x00\x01\x00\x01";
/// The message `!` on `t`, at QoS 0 and at QoS 1 with the packet identifier 7.
const AT_QOS_0: &[u8] = b"\x30\x05\x00\x01t\x00!";
const AT_QOS_1: &[u8] = b"\x32\x07\x00\x01t\x00\x07\x00!";

/// A connection, and its other end, whose broker has said this before and after the subscription.
async fn open(connack: &'static [u8], suback: &[u8]) -> (Opened, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = ConnectionOptions {
        write_timeout: Some(WRITE_TIMEOUT),
        ..ConnectionOptions::new("127.0.0.1", listener.local_addr().unwrap().port(), "me")
    };
    let suback = suback.to_vec();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for answer in [connack.to_vec(), suback] {
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0, "CONNECT comes, and SUBSCRIBE");
            stream.write_all(&answer).await.unwrap();
        }
        stream
    });
    let subscriptions = [Subscription::new("t", QoS::AtLeastOnce)];
    let opened = Qos0Connection::open(&options, &subscriptions).await.unwrap();
    (opened, serving.await.unwrap())
}

/// What comes next, all that there is.
async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    let count = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("something comes").unwrap();
    bytes.truncate(count);
    bytes
}

#[tokio::test]
async fn a_message_is_written_by_whoever_publishes_it() {
    let (Opened { publisher, is_subscribed, connection, .. }, mut broker) = open(CONNACK, SUBACK).await;
    assert!(is_subscribed);
    let elsewhere = publisher.clone();
    // The connection is not polled, and this is no thread of the runtime's.
    let publishing = std::thread::spawn(move || {
        elsewhere.publish("t", b"!");
        elsewhere.publish("t", &[b'x'; 200]);
        elsewhere.flush();
    });
    publishing.join().unwrap();
    let long = [b"\x30\xcc\x01\x00\x01t\x00".to_vec(), vec![b'x'; 200]].concat();
    assert_eq!(read(&mut broker).await, [AT_QOS_0.to_vec(), long].concat());
    assert_eq!(publisher.unwritten(), 0);
    drop(connection);
    assert_eq!(read(&mut broker).await, b"", "it is closed, whoever could still publish");
    publisher.publish("t", b"!");
    publisher.flush();
}

#[tokio::test]
async fn what_comes_is_answered_and_acknowledged() {
    let (Opened { mut connection, publisher, .. }, mut broker) =
        open(CONNACK, &[AT_QOS_1, SUBACK].concat()).await;
    broker.write_all(&[AT_QOS_0, AT_QOS_1].concat()).await.unwrap();
    let answering = tokio::spawn(async move {
        loop {
            match connection.next().await {
                Ok(message) => {
                    assert_eq!((message.topic.as_str(), &message.payload[..]), ("t", &b"!"[..]));
                    publisher.publish("t", b"!");
                    publisher.flush();
                }
                Err(error) => break error,
            }
        }
    });
    let (acknowledgement, answer) = (b"\x40\x02\x00\x07", AT_QOS_0);
    let mut came = Vec::new();
    while came.len() < 2 * acknowledgement.len() + 3 * answer.len() {
        came.extend(read(&mut broker).await);
    }
    let count = |part: &[u8]| came.windows(part.len()).filter(|window| *window == part).count();
    assert_eq!((count(acknowledgement), count(answer)), (2, 3), "{came:?}");
    broker.write_all(b"\xe0\x01\x8e").await.unwrap();
    let end = answering.await.unwrap();
    assert_eq!(end, ConnectionError::Disconnected(ReasonCode::SessionTakenOver.into()));
}

#[tokio::test]
async fn what_the_socket_does_not_take_is_written_while_the_connection_is_polled() {
    let (Opened { mut connection, publisher, .. }, mut broker) = open(CONNACK, SUBACK).await;
    // More than the system buffers for a connection.
    let payload = vec![b'x'; 64 << 20];
    publisher.publish("t", &payload);
    publisher.flush();
    assert!(publisher.unwritten() > 0);
    let polling = tokio::spawn(async move { connection.next().await });
    let mut bytes = vec![0; payload.len() + 9];
    timeout(PATIENCE, broker.read_exact(&mut bytes)).await.expect("all of it comes").unwrap();
    assert!(bytes.ends_with(&payload));
    broker.write_all(AT_QOS_0).await.unwrap();
    assert_eq!(polling.await.unwrap().unwrap().payload, "!");
}

#[tokio::test]
async fn the_last_words_come_before_the_end() {
    let (Opened { connection, publisher, .. }, mut broker) = open(CONNACK, SUBACK).await;
    publisher.publish("t", b"!");
    let leaving = tokio::spawn(connection.disconnect());
    let mut last = vec![0; AT_QOS_0.len() + 2];
    broker.read_exact(&mut last).await.unwrap();
    assert_eq!(last, [AT_QOS_0, b"\xe0\x00"].concat());
    // What comes late does not matter.
    broker.write_all(AT_QOS_0).await.unwrap();
    drop(broker);
    leaving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broker_that_takes_or_says_nothing_any_more_ends_the_connection() {
    let (Opened { mut connection, publisher, .. }, broker) = open(CONNACK, SUBACK).await;
    publisher.publish("t", &vec![0; 64 << 20]);
    assert_eq!(connection.next().await, Err(ConnectionError::Stalled));
    drop(broker);
    let (Opened { mut connection, .. }, mut broker) = open(CONNACK_EACH_SECOND, SUBACK).await;
    assert_eq!(connection.next().await, Err(ConnectionError::TimedOut));
    assert_eq!(read(&mut broker).await, b"\xc0\x00", "it was asked");
    let (Opened { mut connection, .. }, mut broker) = open(CONNACK_EACH_SECOND, SUBACK).await;
    let answering = tokio::spawn(async move {
        for _ in 0..2 {
            assert_eq!(read(&mut broker).await, b"\xc0\x00");
            broker.write_all(b"\xd0\x00").await.unwrap();
        }
    });
    assert_eq!(connection.next().await, Err(ConnectionError::Closed), "and not for silence");
    answering.await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_is_not_granted_is_told() {
    let (opened, _broker) = open(CONNACK, b"\x90\x04\x00\x01\x00\x87").await;
    assert!(!opened.is_subscribed);
}
