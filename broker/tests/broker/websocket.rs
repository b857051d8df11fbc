//! MQTT on WebSocket, spoken by a client library, by hand, and by the library that web pages use.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use offload_broker::{
    Application, BoxFuture, Broker, ClientCertificates, ClientInfo, Config, Error, Identity, Login,
    NoApplication, Refusal, Route, Transport, TransportKind,
    Version::{V5, V311},
    WebSocket,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc::{UnboundedSender, unbounded_channel},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error as WsError, Message,
        client::IntoClientRequest,
        http::HeaderValue,
        protocol::frame::{
            Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    certificates::Authority,
    client::{BOTH, Client, Connect, Socket},
    limits::{assert_disconnected_when_flooded, impatient},
    log::Log,
    server::{DEADLINE, Server},
};

const ORIGIN: &str = "https://plant.example:8443";

fn transport() -> Transport {
    Transport::WebSocket(WebSocket { origins: vec![ORIGIN.into()], tls: None })
}

async fn serve(config: Config) -> Server {
    Server::on(transport(), config, Arc::new(NoApplication)).await
}

/// The other end of a WebSocket connection.
struct Page<S>(WebSocketStream<S>);

/// Opens one with these headers.
async fn open<S: Socket>(socket: S, headers: &[(&'static str, &str)]) -> Result<Page<S>, WsError> {
    let mut request = "ws://localhost/any/path".into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    let (stream, _) = timeout(DEADLINE, client_async(request, socket)).await.expect("no answer")?;
    Ok(Page(stream))
}

const MQTT: (&str, &str) = ("sec-websocket-protocol", "mqtt");

async fn tcp(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

impl Page<TcpStream> {
    async fn new(server: &Server) -> Self {
        open(tcp(server).await, &[MQTT, ("origin", ORIGIN)]).await.unwrap()
    }

    async fn connected(server: &Server, connect: &Connect) -> Self {
        let mut page = Self::new(server).await;
        page.send(connect.bytes()).await;
        assert_eq!(page.receive().await[0], 0x20);
        page
    }
}

impl<S: Socket> Page<S> {
    async fn send(&mut self, bytes: impl Into<Bytes>) {
        self.0.send(Message::Binary(bytes.into())).await.unwrap();
    }

    async fn send_frame(&mut self, opcode: Data, is_final: bool, bytes: impl Into<Bytes>) {
        let frame = Frame::message(bytes.into(), OpCode::Data(opcode), is_final);
        self.0.send(Message::Frame(frame)).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        timeout(DEADLINE, self.0.next()).await.expect("nothing came").expect("closed").unwrap()
    }

    /// The payload of the next frame.
    async fn receive(&mut self) -> Bytes {
        match self.next().await {
            Message::Binary(bytes) => bytes,
            other => panic!("not binary: {other:?}"),
        }
    }

    async fn ping(&mut self) {
        self.send(&[0xC0, 0][..]).await;
        assert_eq!(&self.receive().await[..], [0xD0, 0]);
    }

    async fn expect_close(&mut self, expected: CloseCode) {
        match self.next().await {
            Message::Close(Some(close)) => assert_eq!(close.code, expected),
            other => panic!("not closed: {other:?}"),
        }
        while let Some(Ok(_)) = timeout(DEADLINE, self.0.next()).await.expect("still open") {}
    }
}

#[tokio::test]
async fn both_versions_are_served_on_websocket() {
    let server = serve(Config::default()).await;
    for version in BOTH {
        let mut page = Page::connected(&server, &Connect::new(version, "c")).await;
        page.ping().await;
        page.send(&[0xE0, 0][..]).await;
        page.expect_close(CloseCode::Normal).await;
    }
}

#[tokio::test]
async fn packets_and_frames_need_not_coincide() {
    let server = serve(Config::default()).await;
    let client = Client::open(&server, V311).await;
    let publish = client.publish_bytes(0x30, "t", 0, &[], b"hello");
    let subscribe = [0x82, 6, 0, 1, 0, 1, b't', 0];
    let mut page = Page::new(&server).await;
    // Byte by byte, then all in one, then divided with a ping in between and empty frames.
    for byte in Connect::new(V311, "c").bytes() {
        page.send(vec![byte]).await;
    }
    assert_eq!(&page.receive().await[..], [0x20, 2, 0, 0]);
    page.send([&subscribe[..], &publish, &publish].concat()).await;
    let mut received = Vec::new();
    let expected = [&[0x90, 3, 0, 1, 0], &publish[..], &publish].concat();
    while received.len() < expected.len() {
        received.extend(page.receive().await);
    }
    assert_eq!(received, expected);
    page.send_frame(Data::Binary, false, publish[..3].to_vec()).await;
    page.0.send(Message::Ping(Bytes::from_static(b"still there?"))).await.unwrap();
    page.send_frame(Data::Continue, false, Bytes::new()).await;
    page.send_frame(Data::Continue, true, publish[3..].to_vec()).await;
    assert_eq!(page.next().await, Message::Pong(Bytes::from_static(b"still there?")));
    assert_eq!(page.receive().await, publish);
}

#[tokio::test]
async fn large_messages_come_through_both_ways() {
    let server = serve(Config::default()).await;
    let mut page = Page::connected(&server, &Connect::new(V5, "c")).await;
    page.send(vec![0x82, 7, 0, 1, 0, 0, 1, b't', 0]).await;
    assert_eq!(page.receive().await[0], 0x90);
    let client = Client::open(&server, V5).await;
    let payload: Vec<u8> = (0..3_000_000u32).map(|at| at as u8).collect();
    let publish = client.publish_bytes(0x30, "t", 0, &[], &payload);
    page.send(publish.clone()).await;
    let mut received = Vec::new();
    while received.len() < publish.len() {
        received.extend(page.receive().await);
    }
    assert!(received == publish);
    server.until("nothing is kept", |stats| stats.queued_bytes == 0).await;
}

#[tokio::test]
async fn a_page_that_reads_nothing_is_disconnected() {
    let server = serve(impatient()).await;
    let mut deaf = Page::connected(&server, &Connect::new(V5, "deaf")).await;
    deaf.send(vec![0x82, 7, 0, 1, 0, 0, 1, b't', 0]).await;
    assert_eq!(deaf.receive().await[0], 0x90);
    assert_disconnected_when_flooded(&server).await;
}

/// Hands over each login.
struct Logins(UnboundedSender<Login>);

impl Application for Logins {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        self.0.send(login).unwrap();
        Box::pin(async { Ok(Identity::default()) })
    }

    fn route(&self, client: &ClientInfo, _topic: &str) -> Route {
        let page = matches!(client.transport, TransportKind::WebSocket | TransportKind::WebSocketTls);
        if page { Route::Refuse } else { Route::Broker }
    }
}

#[tokio::test]
async fn the_application_knows_a_web_page_and_its_origin() {
    let (sender, mut logins) = unbounded_channel();
    let server = Server::on(transport(), Config::default(), Arc::new(Logins(sender))).await;
    let mut page = Page::connected(&server, &Connect::new(V5, "c")).await;
    let login = logins.recv().await.unwrap();
    assert_eq!((login.transport, login.origin.as_deref()), (TransportKind::WebSocket, Some(ORIGIN)));
    let publish = Client::open(&server, V5).await.publish_bytes(0x32, "t", 1, &[], b"x");
    page.send(publish).await;
    assert_eq!(&page.receive().await[..], [0x40, 3, 0, 1, 0x87]);
    // No browser, no origin.
    let mut other = open(tcp(&server).await, &[MQTT]).await.unwrap();
    other.send(Connect::new(V5, "d").bytes()).await;
    assert_eq!(logins.recv().await.unwrap().origin, None);
}

#[tokio::test]
async fn other_origins_are_forbidden() {
    let server = serve(Config::default()).await;
    let origin = |value| ("origin", value);
    for headers in [
        &[MQTT, origin("https://evil.example")][..],
        &[MQTT, origin("https://plant.example")],
        &[MQTT, origin("http://plant.example:8443")],
        &[MQTT, origin("https://plant.example:8443.evil.example")],
        &[MQTT, origin("null")],
        &[MQTT, origin("")],
        &[MQTT, origin(ORIGIN), origin("https://evil.example")],
    ] {
        match open(tcp(&server).await, headers).await {
            Err(WsError::Http(response)) => assert_eq!(response.status(), 403, "{headers:?}"),
            other => panic!("{headers:?}: {:?}", other.map(|page| page.0)),
        }
    }
    server.until("all are counted", |stats| stats.violations == 7 && stats.connections == 0).await;
}

#[tokio::test]
async fn the_subprotocol_is_required() {
    let server = serve(Config::default()).await;
    for headers in [&[][..], &[("sec-websocket-protocol", "mqttv3.1, chat")]] {
        match open(tcp(&server).await, headers).await {
            Err(WsError::Http(response)) => assert_eq!(response.status(), 400),
            other => panic!("{:?}", other.map(|page| page.0)),
        }
    }
    let mut page = open(tcp(&server).await, &[("sec-websocket-protocol", "chat, mqtt")]).await.unwrap();
    page.send(Connect::new(V311, "c").bytes()).await;
    assert_eq!(&page.receive().await[..], [0x20, 2, 0, 0]);
}

#[tokio::test]
async fn what_breaks_the_rules_of_websocket_is_closed_with_the_right_code() {
    let server = serve(Config { max_packet_size: 1000, ..Config::default() }).await;
    // Before and after CONNECT.
    for number in 0..2 {
        let page = async || match number {
            0 => Page::new(&server).await,
            _ => Page::connected(&server, &Connect::new(V5, "c")).await,
        };
        let mut text = page().await;
        text.0.send(Message::Text("hello".into())).await.unwrap();
        text.expect_close(CloseCode::Unsupported).await;

        // Refused by its header, before the rest of it is there.
        let mut large = page().await;
        large.0.get_mut().write_all(&[0x82, 0x80 | 126, 0x03, 0xE9, 0, 0, 0, 0]).await.unwrap();
        large.expect_close(CloseCode::Size).await;
        let mut huge = page().await;
        huge.0.get_mut().write_all(&[0x82, 0xFF, 0xFF, 255, 255, 255, 255, 255, 255, 255]).await.unwrap();
        huge.0.get_mut().write_all(&[0; 4]).await.unwrap();
        huge.expect_close(CloseCode::Size).await;

        for bytes in [
            &[0x82, 0x02, 0xC0, 0][..],                        // not masked
            &[0xC2, 0x80, 0, 0, 0, 0],                         // a reserved bit
            &[0x83, 0x80, 0, 0, 0, 0],                         // a reserved kind of data
            &[0x8B, 0x80, 0, 0, 0, 0],                         // a reserved kind of control
            &[0x80, 0x80, 0, 0, 0, 0],                         // a continuation of nothing
            &[0x09, 0x80, 0, 0, 0, 0],                         // a divided ping
            &[0x89, 0x80 | 126, 0, 126, 0, 0, 0, 0],           // a long ping
            &[0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0], // a message within another
        ] {
            let mut page = page().await;
            page.0.get_mut().write_all(bytes).await.unwrap();
            page.expect_close(CloseCode::Protocol).await;
        }
    }
    server.until("all are counted", |stats| stats.violations == 22 && stats.connections == 0).await;
}

#[tokio::test]
async fn a_close_is_answered_and_publishes_the_will() {
    let server = serve(Config::default()).await;
    let mut watcher = Page::connected(&server, &Connect::new(V311, "watcher")).await;
    watcher.send(vec![0x82, 9, 0, 1, 0, 4, b'w', b'i', b'l', b'l', 0]).await;
    assert_eq!(watcher.receive().await[0], 0x90);
    let will = crate::client::Will { qos: 0, ..crate::client::Will::new("will") };
    let mut page = Page::connected(&server, &Connect::new(V5, "c").will(will)).await;
    page.0.close(None).await.unwrap();
    while let Some(message) = timeout(DEADLINE, page.0.next()).await.unwrap() {
        assert!(matches!(message, Ok(Message::Close(_))), "{message:?}");
    }
    assert!(watcher.receive().await.ends_with(b"gone"));
}

#[tokio::test]
async fn a_request_that_is_too_long_or_no_request_is_not_waited_for() {
    let server = serve(Config::default()).await;
    let mut long = tcp(&server).await;
    long.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    // Just what is read at most, so that nothing is left that would reset the connection.
    long.write_all(&[b'x'; 8 * 1024 - 19]).await.unwrap();
    let mut other = tcp(&server).await;
    other.write_all(&Connect::new(V311, "c").bytes()).await.unwrap();
    for (stream, expected) in [(&mut long, "HTTP/1.1 431 "), (&mut other, "")] {
        let answer = read_to_end(stream).await;
        assert!(answer.starts_with(expected) && answer.is_empty() == expected.is_empty(), "{answer}");
    }
    drop((long, other));
    server.until("both are counted", |stats| stats.violations == 2 && stats.connections == 0).await;
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// A request that is taken, line by line.
const REQUEST: [&str; 7] = [
    "GET /mqtt HTTP/1.1",
    "Host: gw",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: mqtt",
];

fn request(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\r\n")).chain(["\r\n".to_owned()]).collect()
}

#[tokio::test]
async fn a_request_may_come_in_pieces_of_any_size() {
    let server = serve(Config::default()).await;
    let request = request(&REQUEST);
    for piece in [1, 2, 3, 7, request.len()] {
        let mut stream = tcp(&server).await;
        stream.set_nodelay(true).unwrap();
        for bytes in request.as_bytes().chunks(piece) {
            stream.write_all(bytes).await.unwrap();
            // So that each is read by itself.
            tokio::task::yield_now().await;
        }
        let mut answer = vec![0; 12];
        timeout(DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, b"HTTP/1.1 101", "pieces of {piece}");
    }
    // Frames that come with it are not lost.
    let mut stream = tcp(&server).await;
    let ping = [0x89, 0x81, 0, 0, 0, 0, b'!'];
    stream.write_all(&[request.as_bytes(), &ping].concat()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(&[0x8A, 1, b'!']) {
        assert!(timeout(DEADLINE, stream.read_buf(&mut answer)).await.unwrap().unwrap() > 0, "{answer:?}");
    }
}

#[tokio::test]
async fn what_is_no_request_for_websocket_is_answered_for_people() {
    let with = |number: usize, line: &'static str| {
        let mut lines = REQUEST;
        lines[number] = line;
        request(&lines)
    };
    let cases = [
        (request(&REQUEST[..2]), "426 Upgrade Required"),
        (with(2, "Upgrade: h2c"), "426 Upgrade Required"),
        (with(4, "Sec-WebSocket-Version: 8"), "426 Upgrade Required"),
        (with(4, "X: y"), "426 Upgrade Required"),
        (with(0, "GET /mqtt HTTP/1.0"), "400 Bad Request"),
        (format!("{}body", with(0, "POST /mqtt HTTP/1.1")), "400 Bad Request"),
        (with(0, "HEAD / HTTP/1.1"), "400 Bad Request"),
        (with(5, "Sec-WebSocket-Key: short"), "400 Bad Request"),
        (with(5, "X: y"), "400 Bad Request"),
        (with(6, "Sec-WebSocket-Protocol: chat"), "400 Bad Request"),
        (with(1, "no header"), "400 Bad Request"),
        (with(1, "Origin: https://evil.example"), "403 Forbidden"),
    ];
    for (request, status) in cases {
        let server = serve(Config::default()).await;
        let log = Log::start();
        let mut stream = tcp(&server).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_to_end(&mut stream).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer}"));
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {head}");
        assert!(body.contains("ws://") && body.ends_with('\n'), "{body}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let upgrade = head.contains("upgrade: websocket") && head.contains("sec-websocket-version: 13");
        assert_eq!(upgrade, status.starts_with("426"), "{head}");
        drop(stream);
        server.until("it is gone", |stats| stats.connections == 0).await;
        assert!(log.text().contains("WebSocket handshake failed"), "{}", log.text());
        assert_eq!(server.broker.stats().violations, 1);
    }
}

#[tokio::test]
async fn other_protocols_on_the_port_are_named_in_the_log() {
    let server = serve(Config::default()).await;
    for (bytes, cause) in [
        (Connect::new(V311, "c").bytes(), "MQTT came to a port for WebSocket"),
        (vec![0x16, 3, 1, 2, 0, 1, 0], "TLS came to a port without it"),
    ] {
        let log = Log::start();
        let mut stream = tcp(&server).await;
        stream.write_all(&bytes).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, "");
        server.until("it is gone", |stats| stats.connections == 0).await;
        assert!(log.text().contains(cause), "{}", log.text());
    }
}

#[tokio::test]
async fn a_page_that_sends_pings_and_does_not_read_gets_only_so_many_answers() {
    let server = serve(Config::default()).await;
    let mut other = Page::connected(&server, &Connect::new(V5, "other")).await;
    let mut flood = Page::connected(&server, &Connect::new(V5, "flood")).await;
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[b'x'; 125]].concat();
    // As much as would fill the buffers of the kernel in both directions, if all were answered.
    let pings = ping.repeat(1000);
    for _ in 0..200 {
        flood.0.get_mut().write_all(&pings).await.unwrap();
    }
    other.ping().await;
    // It is still served once it reads.
    flood.send(&[0xC0, 0][..]).await;
    let mut pongs = 0;
    loop {
        match flood.next().await {
            Message::Pong(_) => pongs += 1,
            message => break assert_eq!(message, Message::Binary(Bytes::from_static(&[0xD0, 0]))),
        }
    }
    assert!((1..200_000).contains(&pongs), "{pongs}");
}

#[tokio::test]
async fn websocket_goes_over_tls_too() {
    let authority = Authority::new();
    let tls = authority.server().tls(ClientCertificates::NotAsked);
    let websocket = WebSocket { origins: Vec::new(), tls: Some(tls) };
    let (sender, mut logins) = unbounded_channel();
    let application = Arc::new(Logins(sender));
    let server = Server::on(Transport::WebSocket(websocket), Config::default(), application).await;
    let connector = TlsConnector::from(authority.client(None));
    let stream = connector.connect("localhost".try_into().unwrap(), tcp(&server).await).await.unwrap();
    let mut page = open(stream, &[MQTT]).await.unwrap();
    page.send(Connect::new(V5, "c").bytes()).await;
    assert_eq!(page.receive().await[0], 0x20);
    assert_eq!(logins.recv().await.unwrap().transport, TransportKind::WebSocketTls);
    page.ping().await;
    page.send(&[0xE0, 0][..]).await;
    page.expect_close(CloseCode::Normal).await;
}

#[tokio::test]
async fn an_origin_that_no_browser_sends_is_refused_at_once() {
    for origin in ["plant.example", "https://plant.example/", "https://", "https://Plant.example", "*"] {
        let transport = Transport::WebSocket(WebSocket { origins: vec![origin.into()], tls: None });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let broker = Broker::new(Config::default(), Arc::new(NoApplication));
        let served = broker.serve(listener, transport, CancellationToken::new()).await;
        assert!(matches!(served, Err(Error::Config(_))), "{origin}");
    }
}

/// Runs mqtt.js; it prints what it heard of its own messages.
async fn mqtt_js(url: &str, version: &str, origin: &str, ca: Option<&Path>) -> std::process::Output {
    // Where `cargo xtask setup` has put it: this program is in <target folder>/release/deps.
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("node");
    assert!(target.join("node_modules/mqtt").is_dir(), "mqtt.js is missing: run `cargo xtask setup`");
    let mut node = Command::new("node");
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mqttjs/echo.cjs"));
    node.arg(target).args([url, version, origin]).args(ca).kill_on_drop(true);
    timeout(DEADLINE, node.output()).await.expect("mqtt.js has not finished").unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_js_is_served_from_an_allowed_origin_alone() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let plain = serve(Config::default()).await;
    let tls = Some(authority.server().tls(ClientCertificates::NotAsked));
    let websocket = WebSocket { origins: vec![ORIGIN.into()], tls };
    let secured =
        Server::on(Transport::WebSocket(websocket), Config::default(), Arc::new(NoApplication)).await;
    for (number, version) in [(1, "4"), (2, "5")] {
        for (server, scheme, ca) in [(&plain, "ws", None), (&secured, "wss", Some(ca.as_path()))] {
            let url = format!("{scheme}://localhost:{}/mqtt", server.address.port());
            let heard = mqtt_js(&url, version, ORIGIN, ca).await;
            let text = String::from_utf8_lossy(&heard.stdout);
            assert_eq!(text, "5 small\n100000 xxxxxxxxxx\n4 last\n", "{heard:?}");
            assert!(heard.status.success(), "{heard:?}");
            let refused = mqtt_js(&url, version, "https://evil.example", ca).await;
            assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
            assert_eq!(server.broker.stats().violations, number);
        }
    }
}
