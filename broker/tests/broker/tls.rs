//! MQTT on TLS.

use std::{path::Path, process::Stdio, sync::Arc, time::Duration};

use offload_broker::{
    Application, BoxFuture, Certificates, ClientCertificates, ClientInfo, Config, Error, Identity, Login,
    NoApplication, Reason, Refusal, Route, Tls, TlsPart, Transport, TransportKind,
    Version::{V5, V311},
};
use rustls::ClientConfig;
use tokio::{io::AsyncReadExt, net::TcpStream, process::Command, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    certificates::Authority,
    client::{BOTH, Client, Connect},
    limits::{assert_disconnected_when_flooded, impatient},
    log::Log,
    server::{DEADLINE, Server},
};

async fn serve(tls: &Tls) -> Server {
    Server::on(Transport::Tls(tls.clone()), Config::default(), Arc::new(NoApplication)).await
}

async fn shake_hands(server: &Server, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(server.address).await?;
    socket.set_nodelay(true)?;
    TlsConnector::from(config).connect("localhost".try_into().unwrap(), socket).await
}

async fn connect(server: &Server, config: Arc<ClientConfig>, connect: &Connect) -> Client {
    let mut client = Client::on(shake_hands(server, config).await.unwrap(), connect.version);
    client.say_hello(connect).await;
    client
}

/// The certificate the server shows.
fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn both_versions_are_served_on_tls() {
    let authority = Authority::new();
    let server = serve(&authority.server().tls(ClientCertificates::NotAsked)).await;
    for version in BOTH {
        let mut client = connect(&server, authority.client(None), &Connect::new(version, "c")).await;
        assert_eq!(client.connack[1], 0);
        client.subscribe("t", 1).await;
        // Larger than any record and any buffer on the way.
        let large = "x".repeat(3_000_000);
        client.publish("t", &large, 0, 0).await;
        assert_eq!(client.take().await.payload.len(), large.len());
        client.disconnect().await;
    }
}

#[tokio::test]
async fn the_end_is_told_so_that_nobody_can_cut_a_connection_short_unnoticed() {
    let authority = Authority::new();
    let server = serve(&authority.server().tls(ClientCertificates::NotAsked)).await;
    // After DISCONNECT, after a violation, and after a refused CONNECT.
    for (first, then) in [
        (Connect::new(V311, "c"), &[0xE0u8, 0][..]),
        (Connect::new(V311, "c"), &[0x00]),
        (Connect::persistent(V311, ""), &[]),
    ] {
        let mut client = connect(&server, authority.client(None), &first).await;
        client.send(then).await;
        // Without close_notify this is an error.
        assert_eq!(timeout(DEADLINE, client.stream.read(&mut [0])).await.unwrap().unwrap(), 0);
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let authority = Authority::new();
    let tls = Transport::Tls(authority.server().tls(ClientCertificates::NotAsked));
    let server = Server::on(tls, impatient(), Arc::new(NoApplication)).await;
    let mut deaf = connect(&server, authority.client(None), &Connect::new(V5, "deaf")).await;
    deaf.subscribe("t", 0).await;
    assert_disconnected_when_flooded(&server).await;
}

#[tokio::test]
async fn idle_half_open_handshakes_keep_nobody_out() {
    let authority = Authority::new();
    let server = serve(&authority.server().tls(ClientCertificates::NotAsked)).await;
    let mut idle = Vec::new();
    for number in 0..200 {
        let mut client = Client::open(&server, V5).await;
        // Some are silent, some begin a record of the handshake and stop there.
        if number % 2 == 0 {
            client.send(&[22, 3, 1, 2, 0, 1, 0]).await;
        }
        idle.push(client);
    }
    for version in BOTH {
        connect(&server, authority.client(None), &Connect::new(version, "c")).await.ping().await;
    }
    assert!(server.broker.stats().connections >= 200);
}

#[tokio::test]
async fn a_handshake_must_end_in_time() {
    let authority = Authority::new();
    let tls = authority.server().tls(ClientCertificates::NotAsked);
    let config = Config { connect_timeout: Duration::from_millis(50), ..Config::default() };
    let server = Server::on(Transport::Tls(tls), config, Arc::new(NoApplication)).await;
    let mut silent = Client::open(&server, V5).await;
    let mut half = Client::open(&server, V5).await;
    half.send(&[22, 3, 1, 2, 0, 1, 0]).await;
    silent.expect_end().await;
    half.expect_end().await;
    server.until("their permits are given back", |stats| stats.connections == 0).await;
}

#[tokio::test]
async fn what_is_no_tls_is_refused_and_counted() {
    let authority = Authority::new();
    let server = serve(&authority.server().tls(ClientCertificates::NotAsked)).await;
    let log = Log::start();
    let mut plain = Client::open(&server, V5).await;
    plain.send(&Connect::new(V5, "c").bytes()).await;
    // An alert of TLS, and the end.
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, plain.stream.read_to_end(&mut answer)).await.unwrap();
    assert_ne!(answer.first(), Some(&0x20));
    server.until("it is counted", |stats| stats.violations == 1 && stats.connections == 0).await;
    assert!(log.text().contains("no TLS came to a port for it"), "{}", log.text());
    connect(&server, authority.client(None), &Connect::new(V5, "c")).await.ping().await;
}

/// Takes the name in a client's certificate for the user, and lets nobody else in.
struct ByCertificate;

impl Application for ByCertificate {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        assert_eq!(login.transport, TransportKind::Tls);
        Box::pin(async move {
            match login.certificate {
                Some(name) => Ok(Identity { user: Some(name.into()), ..Identity::default() }),
                None => Err(Reason::NotAuthorized.into()),
            }
        })
    }

    fn may_subscribe(&self, client: &ClientInfo, filter: &str) -> bool {
        client.user.as_deref() == Some(filter)
    }

    fn route(&self, _client: &ClientInfo, _topic: &str) -> Route {
        Route::Broker
    }
}

#[tokio::test]
async fn a_client_certificate_is_an_identity() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = authority.pem.as_bytes();
    let tls = authority.server().tls(ClientCertificates::Optional { ca });
    let server = Server::on(Transport::Tls(tls), Config::default(), Arc::new(ByCertificate)).await;

    for (certified, name) in [
        (authority.certify(Some("sensor 7"), &["other.example"]), "sensor 7"),
        (authority.certify(None, &["sensor.example", "other.example"]), "sensor.example"),
    ] {
        let mut client = connect(&server, authority.client(Some(&certified)), &Connect::new(V5, "c")).await;
        assert_eq!(client.connack[1], 0);
        assert_eq!(client.subscribe_all(&[(name, 0), ("other.example", 0)], &[]).await, [0, 0x87]);
        client.disconnect().await;
    }
    // None is allowed, and what that means is for the application to say.
    let refused = connect(&server, authority.client(None), &Connect::new(V5, "c")).await;
    assert_eq!(refused.connack[1], 0x87);
    // One of another CA gets nowhere.
    let forged = stranger.certify(Some("sensor 7"), &[]);
    let mut forger = Client::on(shake_hands(&server, authority.client(Some(&forged))).await.unwrap(), V5);
    let _ = tokio::io::AsyncWriteExt::write_all(&mut forger.stream, &Connect::new(V5, "c").bytes()).await;
    forger.expect_end().await;
    server.until("it is counted", |stats| stats.violations == 1).await;
}

#[tokio::test]
async fn a_client_certificate_may_be_required() {
    let authority = Authority::new();
    let ca = authority.pem.as_bytes();
    let server = serve(&authority.server().tls(ClientCertificates::Required { ca })).await;
    let device = authority.certify(Some("device"), &[]);
    connect(&server, authority.client(Some(&device)), &Connect::new(V5, "c")).await.ping().await;
    // The client may believe that it is connected before the server has looked.
    if let Ok(stream) = shake_hands(&server, authority.client(None)).await {
        let mut nobody = Client::on(stream, V5);
        let _ = tokio::io::AsyncWriteExt::write_all(&mut nobody.stream, &Connect::new(V5, "c").bytes()).await;
        nobody.expect_end().await;
    }
    server.until("it is counted", |stats| stats.violations == 1).await;
}

#[tokio::test]
async fn certificates_are_replaced_under_connected_clients() {
    let authority = Authority::new();
    let tls = authority.server().tls(ClientCertificates::NotAsked);
    let server = serve(&tls).await;
    // One client's configuration for all, so that it would resume a session if it were let.
    let config = authority.client(None);
    let stream = shake_hands(&server, config.clone()).await.unwrap();
    let before = shown(&stream);
    let mut stays = Client::on(stream, V5);
    stays.say_hello(&Connect::new(V5, "stays")).await;
    stays.ping().await;

    let other = authority.server();
    let broken = Certificates { key: b"no key", ..other.with(ClientCertificates::NotAsked) };
    assert!(matches!(tls.replace(&broken), Err(Error::Certificates { what: TlsPart::Key, .. })));
    assert_eq!(shown(&shake_hands(&server, authority.client(None)).await.unwrap()), before);

    tls.replace(&other.with(ClientCertificates::NotAsked)).unwrap();
    let stream = shake_hands(&server, config).await.unwrap();
    assert_ne!(shown(&stream), before);
    let mut new = Client::on(stream, V5);
    new.say_hello(&Connect::new(V5, "new")).await;
    new.ping().await;
    stays.ping().await;
    assert_eq!(server.broker.stats().sessions, 2);
}

#[test]
fn certificates_that_cannot_work_are_refused_at_once() {
    let authority = Authority::new();
    let (one, other) = (authority.server(), authority.server());
    let good = one.with(ClientCertificates::NotAsked);
    let no_ca = ClientCertificates::Required { ca: b"" };
    for (certificates, expected) in [
        (Certificates { chain: b"", ..good }, TlsPart::Certificate),
        (Certificates { key: other.key.as_bytes(), ..good }, TlsPart::Pair),
        (Certificates { clients: no_ca, ..good }, TlsPart::ClientCa),
    ] {
        let refused = Tls::new(&certificates);
        assert!(
            matches!(&refused, Err(Error::Certificates { what, .. }) if *what == expected),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn rumqttc_speaks_tls_with_a_certificate() {
    use rumqttc::{TlsConfiguration, v5};
    let authority = Authority::new();
    let ca = authority.pem.as_bytes();
    let tls = authority.server().tls(ClientCertificates::Required { ca });
    let server = Server::on(Transport::Tls(tls), Config::default(), Arc::new(ByCertificate)).await;
    let device = authority.certify(Some("device"), &[]);
    let mut options = v5::MqttOptions::new("c", "localhost", server.address.port());
    let tls = TlsConfiguration::Rustls(authority.client(Some(&device)));
    options.set_transport(rumqttc::Transport::tls_with_config(tls));
    let (client, mut events) = v5::AsyncClient::new(options, 10);
    client.subscribe("device", v5::mqttbytes::QoS::AtLeastOnce).await.unwrap();
    client.publish("device", v5::mqttbytes::QoS::AtLeastOnce, false, "hello").await.unwrap();
    let heard = async {
        loop {
            if let v5::Event::Incoming(v5::Incoming::Publish(message)) = events.poll().await.unwrap() {
                return message.payload;
            }
        }
    };
    assert_eq!(&timeout(DEADLINE, heard).await.expect("nothing came")[..], b"hello");
}

/// One of Mosquitto's clients, with the arguments that all have in common.
fn mosquitto(program: &str, server: &Server, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "localhost", "-p", &server.address.port().to_string(), "-t", "sensor", "-q", "1"]);
    command.arg("--cafile").arg(folder.join("ca.pem"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_clients_speak_tls_with_and_without_certificates() {
    let authority = Authority::new();
    let ca = authority.pem.as_bytes();
    let tls = authority.server().tls(ClientCertificates::Required { ca });
    let server = Server::on(Transport::Tls(tls), Config::default(), Arc::new(ByCertificate)).await;
    let folder = tempfile::tempdir().unwrap();
    let device = authority.certify(Some("sensor"), &[]);
    for (name, text) in [("ca.pem", &authority.pem), ("cert.pem", &device.chain), ("key.pem", &device.key)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let certified = |program| {
        let mut command = mosquitto(program, &server, folder.path());
        command.arg("--cert").arg(folder.path().join("cert.pem"));
        command.arg("--key").arg(folder.path().join("key.pem"));
        command
    };
    for version in ["mqttv311", "mqttv5"] {
        let mut subscribe = certified("mosquitto_sub");
        let mut subscribe = subscribe.args(["-V", version, "-C", "1"]).spawn().unwrap();
        server.until("it has subscribed", |stats| stats.subscriptions == 1).await;
        let mut publish = certified("mosquitto_pub");
        publish.args(["-V", version, "-m", "warm"]);
        let published = timeout(DEADLINE, publish.output()).await.unwrap().unwrap();
        assert!(published.status.success(), "{published:?}");
        let mut heard = String::new();
        let reading = subscribe.stdout.as_mut().unwrap().read_to_string(&mut heard);
        timeout(DEADLINE, reading).await.unwrap().unwrap();
        assert_eq!(heard, "warm\n");
        assert!(timeout(DEADLINE, subscribe.wait()).await.unwrap().unwrap().success());
        server.until("both are gone", |stats| stats.sessions == 0).await;
    }
    let mut publish = mosquitto("mosquitto_pub", &server, folder.path());
    let refused = timeout(DEADLINE, publish.args(["-m", "warm"]).output()).await.unwrap().unwrap();
    assert!(!refused.status.success());
}
