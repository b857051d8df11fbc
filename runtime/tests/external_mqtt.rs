//! The ingress on an existing broker, against a real Mosquitto.

#[path = "external_mqtt/device.rs"]
mod device;
#[path = "external_mqtt/mosquitto.rs"]
mod mosquitto;
#[path = "external_mqtt/old_broker.rs"]
mod old_broker;
#[path = "external_mqtt/scripted.rs"]
mod scripted;
#[path = "external_mqtt/sink.rs"]
mod sink;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use device::Device;
use mosquitto::Mosquitto;
use offload_rt::client::Client;
use offload_rt::config::{Broker, BrokerUrls, MqttVersion, TimeSpan};
use offload_rt::ingress::external_mqtt::{ExternalError, ExternalIngress, LinkState, Settings, Version};
use offload_rt::ingress::{Ingress, Intake, Notice, Notices, Statistics};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rumqttc::QoS;
use sink::EchoSink;

/// The longest that anything here may take: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

fn settings(port: u16) -> Broker {
    Broker {
        url: url("mqtt", "127.0.0.1", port),
        receive_maximum: 500,
        reconnect_min: TimeSpan::millis(10),
        reconnect_max: TimeSpan::millis(200),
        ..Broker::default()
    }
}

fn url(scheme: &str, host: &str, port: u16) -> BrokerUrls {
    format!("{scheme}://{host}:{port}").parse().unwrap()
}

fn joining<'s>(broker: &'s Broker, client_id: &'s str) -> Settings<'s> {
    Settings {
        broker,
        urls: &broker.url,
        client_id,
        takes_requests: true,
        asks_others: false,
        tap: None,
        group: None,
    }
}

fn notices(name: &str) -> Notices {
    let notice = |state: &'static str| Notice {
        topic: format!("gateway/{name}/status").into(),
        payload: state.into(),
        retain: true,
    };
    Notices::fixed(notice("online"), notice("offline"))
}

async fn start(broker: &Broker, client_id: &str, sink: &Arc<EchoSink>) -> ExternalIngress {
    let (settings, intake) = (joining(broker, client_id), Intake::new(sink.clone()));
    let started = ExternalIngress::start(settings, intake, notices(client_id));
    tokio::time::timeout(PATIENCE, started).await.expect("joined in time").unwrap()
}

fn connect(broker: &Broker, client_id: &str, sink: &Arc<EchoSink>) -> Result<ExternalIngress, ExternalError> {
    ExternalIngress::connect(joining(broker, client_id), Intake::new(sink.clone()), notices(client_id))
}

async fn wait_for(ingress: &ExternalIngress, wanted: impl FnMut(&LinkState) -> bool) -> LinkState {
    let mut status = ingress.link_state();
    let reached = tokio::time::timeout(PATIENCE, status.wait_for(wanted)).await;
    reached.expect("status reached in time").expect("ingress alive").clone()
}

fn numbers(range: std::ops::Range<usize>) -> BTreeSet<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn a_window_of_more_than_twenty_loses_nothing() {
    let broker = Mosquitto::start();
    let sink = EchoSink::holding();
    let ingress = start(&settings(broker.port), "window", &sink).await;
    let mut device = Device::connect(broker.port, "d").await;
    device.request("localCode/d", 0..500).await;
    sink.received_at_least(500).await;
    // The broker's window is full of requests that are not answered: all others wait in the broker, which holds 1000.
    device.request("localCode/d", 500..1400).await;
    sink.release();
    assert_eq!(device.answers(1400).await, numbers(0..1400));
    assert_eq!(sink.received().len(), 1400, "each is delivered once");
    ingress.shutdown().await;
}

#[tokio::test]
async fn a_restart_of_the_broker_in_mid_flight_loses_nothing_and_runs_nothing_twice() {
    for version in [MqttVersion::V5, MqttVersion::V311] {
        let mut broker = Mosquitto::start();
        let sink = EchoSink::holding();
        let ingress = start(&Broker { protocol: version, ..settings(broker.port) }, "restart", &sink).await;
        let mut device = Device::connect(broker.port, "d").await;
        device.request("localCode/d", 0..40).await;
        let in_flight = if version == MqttVersion::V5 { 40 } else { 20 };
        sink.received_at_least(in_flight).await;
        broker.stop();
        wait_for(&ingress, |status| matches!(status, LinkState::Waiting { .. })).await;
        // Answered while there is nobody to tell.
        sink.release();
        broker.restart();
        wait_for(&ingress, |status| matches!(status, LinkState::Serving { .. })).await;
        assert_eq!(device.answers(40).await, numbers(0..40), "{version:?}");
        assert_eq!(sink.received().len(), 40, "{version:?}: each is run once");
        ingress.shutdown().await;
    }
}

#[tokio::test]
async fn two_gateways_share_the_work() {
    let broker = Mosquitto::start();
    let sinks = [EchoSink::answering(), EchoSink::answering()];
    let first = start(&settings(broker.port), "share-1", &sinks[0]).await;
    let second = start(&settings(broker.port), "share-2", &sinks[1]).await;
    assert!(matches!(*second.link_state().borrow(), LinkState::Serving { shared: true, .. }));
    let mut device = Device::connect(broker.port, "d").await;
    device.request("inputCode/d", 0..200).await;
    assert_eq!(device.answers(200).await, numbers(0..200));
    let counts = sinks.each_ref().map(|sink| sink.received().len());
    assert_eq!(counts[0] + counts[1], 200);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn a_gateway_that_stops_gives_its_share_back_and_answers_what_it_has() {
    let broker = Mosquitto::start();
    let (leaving, staying) = (EchoSink::holding(), EchoSink::answering());
    let first = start(&settings(broker.port), "leaving", &leaving).await;
    let mut device = Device::connect(broker.port, "d").await;
    device.request("localCode/d", 0..10).await;
    leaving.received_at_least(10).await;
    let second = start(&settings(broker.port), "staying", &staying).await;
    first.stop_taking().await;
    device.request("localCode/d", 10..60).await;
    assert_eq!(device.answers(50).await, numbers(10..60));
    leaving.release();
    assert_eq!(device.answers(10).await, numbers(0..10));
    assert_eq!((leaving.received().len(), staying.received().len()), (10, 50));
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn what_a_gateway_leaves_unanswered_is_delivered_to_its_successor() {
    let broker = Mosquitto::start();
    let (unable, able) = (EchoSink::holding(), EchoSink::answering());
    let first = start(&settings(broker.port), "same", &unable).await;
    let mut device = Device::connect(broker.port, "d").await;
    device.request("localCode/d", 0..30).await;
    unable.received_at_least(30).await;
    first.shutdown().await;
    let second = start(&settings(broker.port), "same", &able).await;
    assert_eq!(device.answers(30).await, numbers(0..30));
    second.shutdown().await;
}

#[tokio::test]
async fn a_clash_of_client_ids_is_reported_and_not_fought_over() {
    for version in [MqttVersion::V5, MqttVersion::V311] {
        let broker = Mosquitto::start();
        let settings = Broker { protocol: version, ..settings(broker.port) };
        let sink = EchoSink::answering();
        let first = start(&settings, "copied", &sink).await;
        let second = connect(&settings, "copied", &sink).unwrap();
        let conflicts = |status: &LinkState| *status == LinkState::ClientIdConflict;
        let serves = tokio::select! {
            _ = wait_for(&first, conflicts) => &second,
            _ = wait_for(&second, conflicts) => &first,
        };
        // The one that backs off leaves the other in peace.
        wait_for(serves, |status| matches!(status, LinkState::Serving { .. })).await;
        let mut device = Device::connect(broker.port, "d").await;
        device.request("localCode/d", 0..10).await;
        assert_eq!(device.answers(10).await, numbers(0..10), "{version:?}");
        first.shutdown().await;
        second.shutdown().await;
    }
}

#[tokio::test]
async fn answers_and_notices_are_published_without_a_request_and_messages_are_counted() {
    let broker = Mosquitto::start();
    let sink = EchoSink::answering();
    let ingress = start(&settings(broker.port), "value", &sink).await;
    let mut device = Device::connect(broker.port, "d").await;
    device.request("localCode/d", 0..10).await;
    assert_eq!(device.answers(10).await, numbers(0..10));
    let asker = Client { principal: None, flow: "d".into(), account: "d".into(), web: false };
    ingress.publish_answer(&asker, sink::answer("d", "an answer"), None);
    ingress.publish_notice(Notice { topic: "result/d".into(), payload: "a notice".into(), retain: false });
    assert_eq!(device.answers(2).await, BTreeSet::from(["a notice", "an answer"].map(str::to_owned)));
    ingress.shutdown().await;
    // Of what went out, two are the status: at the start and at the end.
    let expected = Statistics { connections: 0, messages_in: 10, messages_out: 14, dropped: 0 };
    assert_eq!(ingress.statistics(), expected);
}

#[tokio::test]
async fn a_stored_message_is_flagged_where_the_broker_sends_it_at_all() {
    for (version, retained) in [(MqttVersion::V5, 0), (MqttVersion::V311, 1)] {
        let broker = Mosquitto::start();
        let mut device = Device::connect(broker.port, "d").await;
        device.store("localCode/d", "stored").await;
        let sink = EchoSink::answering();
        let ingress = start(&Broker { protocol: version, ..settings(broker.port) }, "retained", &sink).await;
        device.request("localCode/d", 0..1).await;
        assert_eq!(device.answers(1).await, numbers(0..1));
        let received = sink.received();
        assert_eq!(received.iter().filter(|request| request.retained).count(), retained, "{version:?}");
        assert_eq!(received.len(), retained + 1, "{version:?}");
        ingress.shutdown().await;
    }
}

#[tokio::test]
async fn the_reply_id_stands_in_for_the_principal_and_bare_topics_are_ignored() {
    let broker = Mosquitto::start();
    let sink = EchoSink::answering();
    let ingress = start(&settings(broker.port), "topics", &sink).await;
    let mut device = Device::connect(broker.port, "a/b").await;
    for topic in ["localCode", "inputCode", "localCode/", "inputCode/a/b"] {
        device.request(topic, 0..1).await;
    }
    assert_eq!(device.answers(1).await, numbers(0..1));
    let received = sink.received();
    let seen: Vec<_> =
        received.iter().map(|request| (request.topic.as_str(), request.principal.as_deref())).collect();
    assert_eq!(seen, [("localCode/", None), ("inputCode/a/b", Some("a/b"))]);
    ingress.shutdown().await;
}

#[tokio::test]
async fn an_answer_over_the_brokers_maximum_packet_size_is_replaced() {
    let broker = Mosquitto::with("max_packet_size 400\n");
    let sink = EchoSink::verbose(1000);
    let ingress = start(&settings(broker.port), "size", &sink).await;
    let mut device = Device::connect(broker.port, "d").await;
    device.request("localCode/d", 0..3).await;
    let answers = device.answers(3).await;
    assert!(answers.iter().all(|answer| answer.starts_with("error: output: ")), "{answers:?}");
    ingress.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_knows_no_mqtt_5_is_spoken_to_in_3_1_1() {
    let broker = Mosquitto::start();
    let old = old_broker::in_front_of(broker.port).await;
    let sink = EchoSink::answering();
    let ingress = start(&settings(old), "old", &sink).await;
    assert_eq!(*ingress.link_state().borrow(), LinkState::Serving { version: Version::V311, shared: false });
    let mut device = Device::connect(broker.port, "d").await;
    device.request("localCode/d", 0..10).await;
    assert_eq!(device.answers(10).await, numbers(0..10));
    ingress.shutdown().await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_yet_is_waited_for() {
    let mut broker = Mosquitto::start();
    broker.stop();
    let sink = EchoSink::answering();
    let ingress = connect(&settings(broker.port), "early", &sink).unwrap();
    wait_for(&ingress, |status| matches!(status, LinkState::Waiting { .. })).await;
    broker.restart();
    wait_for(&ingress, |status| matches!(status, LinkState::Serving { .. })).await;
    ingress.shutdown().await;
}

#[tokio::test]
async fn the_password_comes_from_its_file() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "correct horse\n").unwrap();
    let broker = Mosquitto::with_user("gateway", "correct horse");
    let sink = EchoSink::answering();
    let known = Broker {
        username: Some("gateway".to_owned()),
        password_file: Some(secret.path().to_owned()),
        ..settings(broker.port)
    };
    start(&known, "known", &sink).await.shutdown().await;

    let stranger = connect(&settings(broker.port), "stranger", &sink).unwrap();
    let status = wait_for(&stranger, |status| matches!(status, LinkState::Waiting { .. })).await;
    let LinkState::Waiting { reason } = status else { unreachable!() };
    assert!(reason.contains("NotAuthorized"), "{reason}");
    stranger.shutdown().await;

    let unreadable = Broker { password_file: Some("/nonexistent".into()), ..known };
    assert!(connect(&unreadable, "unreadable", &sink).is_err());
}

/// CONNACK without properties, and SUBACK for both filters (MQTT 5, sections 3.2 and 3.9).
const ACCEPTED: &[u8] = b"\x20\x03\x00\x00\x00\x90\x05\x00\x01\x00\x01\x01";

/// What a gateway says of a broker that answers its CONNECT with these bytes, and closes the connection.
async fn status_after(answer: &'static [u8], wanted: impl FnMut(&LinkState) -> bool) -> LinkState {
    let port = scripted::broker(answer).await;
    // One attempt is enough.
    let settings =
        Broker { reconnect_min: TimeSpan::secs(30), reconnect_max: TimeSpan::secs(30), ..settings(port) };
    let sink = EchoSink::answering();
    let ingress = connect(&settings, "told", &sink).unwrap();
    let status = wait_for(&ingress, wanted).await;
    ingress.shutdown().await;
    status
}

#[tokio::test]
async fn a_take_over_is_known_from_each_form_of_disconnect() {
    let ended =
        |status: &LinkState| matches!(status, LinkState::Waiting { .. } | LinkState::ClientIdConflict);
    for disconnect in [&b"\xe0\x01\x8e"[..], b"\xe0\x02\x8e\x00", b"\xe0\x05\x8e\x03\x1f\x00\x00"] {
        let answer = [ACCEPTED, disconnect].concat().leak();
        assert_eq!(status_after(answer, ended).await, LinkState::ClientIdConflict, "{disconnect:?}");
    }
}

#[tokio::test]
async fn what_the_broker_says_of_its_refusal_is_shown() {
    for (answer, expected) in [
        (&b"\x20\x0d\x00\x87\x0a\x1f\x00\x07not\nyou"[..], "refuses the connection: NotAuthorized: not you"),
        ([ACCEPTED, b"\xe0\x01\x8b"].concat().leak(), "ended the connection: ServerShuttingDown"),
        ([ACCEPTED, b"\xe0\x00"].concat().leak(), "ended the connection: NormalDisconnection"),
        (
            [ACCEPTED, b"\xe0\x08\x95\x06\x1f\x00\x03big"].concat().leak(),
            "ended the connection: PacketTooLarge: big",
        ),
        (
            b"\x20\x03\x00\x00\x00\x90\x0b\x00\x01\x06\x1f\x00\x03why\x87\x87",
            "subscription to the request topics: NotAuthorized: why",
        ),
    ] {
        let status = status_after(answer, |status| matches!(status, LinkState::Waiting { .. })).await;
        let LinkState::Waiting { reason } = status else { unreachable!() };
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn what_answers_in_the_brokers_place_is_named() {
    for (answer, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "HTTP answers on this port, not MQTT"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "TLS answers on this port: try mqtts://"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "`SSH-2.0-OpenSSH_9.2p1` answers on this port"),
    ] {
        let status = status_after(answer, |status| matches!(status, LinkState::Waiting { .. })).await;
        let LinkState::Waiting { reason } = status else { unreachable!() };
        assert!(reason.starts_with(expected), "{reason}");
    }
}

/// What a broker lacks is done without: its requests are answered all the same.
#[tokio::test]
async fn a_broker_without_retained_messages_or_qos_1_is_joined() {
    for lines in
        ["retain_available false\n", "max_qos 0\n", "max_qos 1\n", "retain_available false\nmax_qos 0\n"]
    {
        let broker = Mosquitto::with(lines);
        let sink = EchoSink::answering();
        let ingress = start(&settings(broker.port), "frugal", &sink).await;
        assert!(
            matches!(*ingress.link_state().borrow(), LinkState::Serving { version: Version::V5, .. }),
            "{lines}"
        );
        let mut device = Device::connect(broker.port, "d").await;
        let qos = if lines.contains("max_qos 0") { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        device.request_at(qos, "localCode/d", 0..10).await;
        assert_eq!(device.answers(10).await, numbers(0..10), "{lines}");
        ingress.shutdown().await;
    }
}

#[tokio::test]
async fn a_broker_is_joined_by_tls_with_a_certificate_of_ones_own() {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name);
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(file(name), params.self_signed(&key).unwrap().pem()).unwrap();
        Issuer::new(params, key)
    };
    let (ca, _) = (authority("ca"), authority("other"));
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    std::fs::write(file("key"), key.serialize_pem()).unwrap();
    std::fs::write(file("certificate"), certificate.pem()).unwrap();
    let [ca, key, certificate] = ["ca", "key", "certificate"].map(|name| file(name).display().to_string());
    let broker = Mosquitto::with(&format!(
        "cafile {ca}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
    ));

    let sink = EchoSink::answering();
    let known = Broker {
        url: url("mqtts", "127.0.0.1", broker.port),
        cafile: Some(file("ca")),
        cert: Some(file("certificate")),
        key: Some(file("key")),
        ..settings(broker.port)
    };
    for protocol in [MqttVersion::V5, MqttVersion::V311] {
        let ingress = start(&Broker { protocol, ..known.clone() }, "known", &sink).await;
        ingress.shutdown().await;
    }

    let elsewhere = url("mqtts", "localhost", broker.port);
    let plain = url("mqtt", "127.0.0.1", broker.port);
    for (refused, expected) in [
        (Broker { cafile: Some(file("other")), ..known.clone() }, "nobody who is trusted here vouches"),
        (Broker { url: elsewhere, ..known.clone() }, "certificate not valid for name \"localhost\""),
        (Broker { cert: None, key: None, ..known.clone() }, ""),
        (Broker { url: plain, ..known.clone() }, ""),
    ] {
        let ingress = connect(&refused, "refused", &sink).unwrap();
        let status = wait_for(&ingress, |status| *status != LinkState::Connecting).await;
        let LinkState::Waiting { reason } = status else { panic!("{status:?}") };
        assert!(reason.contains(expected), "{reason}");
        ingress.shutdown().await;
    }

    let unusable = Broker { key: Some(file("ca")), ..known };
    let error = connect(&unusable, "unusable", &sink);
    let Err(error) = error else { panic!("a certificate is no key") };
    assert!(error.to_string().ends_with("ca holds no private key without a password in PEM"), "{error}");
}
