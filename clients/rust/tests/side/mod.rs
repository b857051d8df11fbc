//! The other side of the client: a Mosquitto of the test's own, and a gateway whose answers the test decides. And the
//! command as tests start it.

// Each test file uses its part of this.
#![allow(dead_code)]

use std::fs;
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use offload_client::{Answer, AnswerForm, Options, Outcome, Request, answer};
use offload_protocol::request::{self, Bounds};
use offload_protocol::topic;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Filter, Packet, Publish, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// Nothing that a test waits for takes so long unless it is broken.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at what is awaited, and two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);

/// A Mosquitto on a port of its own; gone when dropped.
pub struct Mosquitto {
    pub port: u16,
    /// Of the listener with TLS, if there is one.
    pub tls_port: Option<u16>,
    folder: TempDir,
    process: Child,
}

impl Mosquitto {
    pub async fn start() -> Self {
        Self::start_with("allow_anonymous true").await
    }

    /// With further lines of configuration.
    pub async fn start_with(configuration: &str) -> Self {
        Self::start_on_ports(configuration, None).await
    }

    /// Open to all, and with a listener for TLS that has these lines of configuration.
    pub async fn start_with_tls(lines: &str) -> Self {
        // A Mosquitto that root starts becomes a user who cannot read the test's files.
        Self::start_on_ports("user root\nallow_anonymous true", Some(lines)).await
    }

    async fn start_on_ports(configuration: &str, tls: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Another process may take the port between our look and Mosquitto's start: then try another one.
        for _ in 0..10 {
            let free = || TcpListener::bind("127.0.0.1:0").unwrap();
            let [first, second] = [free(), free()].map(|listener| listener.local_addr().unwrap().port());
            let (port, tls_port) = (first, tls.map(|_| second));
            let mut text = format!("listener {port} 127.0.0.1\nset_tcp_nodelay true\n{configuration}\n");
            if let Some(lines) = tls {
                text += &format!("listener {second} 127.0.0.1\n{lines}\n");
            }
            fs::write(folder.path().join("mosquitto.conf"), text).unwrap();
            // It opens its listeners in this order.
            if let Some(process) = Self::spawn(&folder, tls_port.unwrap_or(port)).await {
                return Self { port, tls_port, folder, process };
            }
        }
        panic!("Mosquitto does not start");
    }

    async fn spawn(folder: &TempDir, port: u16) -> Option<Child> {
        let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"]
            .into_iter()
            .find(|path| fs::exists(path).unwrap());
        let mut process = Command::new(program.unwrap_or("mosquitto"))
            .arg("-c")
            .arg(folder.path().join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is installed");
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if process.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < deadline, "Mosquitto does not listen");
            sleep(PAUSE).await;
        }
        // Somebody listens; it is Mosquitto if that has not given up.
        process.try_wait().unwrap().is_none().then_some(process)
    }

    /// Kills it and starts it again on the same port; it forgets everything.
    pub async fn restart(&mut self) {
        self.process.kill().await.unwrap();
        let last = self.tls_port.unwrap_or(self.port);
        self.process = Self::spawn(&self.folder, last).await.expect("Mosquitto starts again");
    }

    pub fn options(&self) -> Options {
        Options { port: self.port, ..Options::default() }
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

/// A way to a broker that can be cut: its connections end, new ones get through.
pub struct Road {
    pub port: u16,
    connections: Arc<Mutex<JoinSet<()>>>,
    listener: JoinHandle<()>,
}

impl Drop for Road {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Road {
    pub async fn to(broker: &Mosquitto) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, behind) = (listener.local_addr().unwrap().port(), broker.port);
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let accepted = connections.clone();
        let listener = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                accepted.lock().unwrap().spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
                    // It ends with either side.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { port, connections, listener }
    }

    pub fn cut(&self) {
        self.connections.lock().unwrap().abort_all();
    }
}

/// Something else than a broker: on a port of its own, answers the first bytes of every connection with these, and
/// closes it. Gone when dropped.
pub struct Answering {
    pub port: u16,
    listener: JoinHandle<()>,
}

impl Answering {
    pub async fn with(answer: &'static [u8]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    // Whoever asks may leave at any time.
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(answer).await;
                });
            }
        });
        Self { port, listener }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// A request as it arrived.
pub struct Delivery {
    pub request: Request,
    publish: Publish,
}

impl Delivery {
    /// Where it came.
    pub fn topic(&self) -> &str {
        str::from_utf8(&self.publish.topic).unwrap()
    }
}

/// Takes requests from a broker and answers as it is told.
pub struct Gateway {
    client: AsyncClient,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    task: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gateway {
    /// Connects, and returns once it gets what is published on the request topics.
    pub async fn start(broker: &Mosquitto) -> Self {
        let mut options = MqttOptions::new("gateway", "127.0.0.1", broker.port);
        options.set_max_packet_size(Some(1 << 24));
        let mut network = rumqttc::NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        let (client, mut events) = AsyncClient::new(options, 1000);
        let (send, deliveries) = mpsc::unbounded_channel();
        let (ready, subscribed) = oneshot::channel();
        let mut ready = Some(ready);
        let subscriber = client.clone();
        let task = tokio::spawn(async move {
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        let filters = [topic::LOCAL_CODE_FILTER, topic::INPUT_CODE_FILTER];
                        let filters = filters.map(|filter| Filter::new(filter, QoS::AtLeastOnce));
                        subscriber.try_subscribe_many(filters).unwrap();
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        ready.take().map(|ready| ready.send(()));
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        let name = str::from_utf8(&publish.topic).unwrap();
                        let kind = topic::parse_request(name).unwrap().kind;
                        let properties = publish.properties.clone().unwrap_or_default();
                        let request = request::decode(
                            kind,
                            publish.payload.clone(),
                            &properties.user_properties,
                            &Bounds::NONE,
                        );
                        // The test may be over.
                        let _ = send.send(Delivery { request: request.unwrap(), publish });
                    }
                    Ok(_) => {}
                    Err(_) => sleep(PAUSE).await,
                }
            }
        });
        timeout(DEADLINE, subscribed).await.expect("a SUBACK in time").unwrap();
        Self { client, deliveries, task }
    }

    /// The next request.
    pub async fn next(&mut self) -> Delivery {
        timeout(DEADLINE, self.deliveries.recv()).await.expect("a request in time").unwrap()
    }

    /// Answers it as the contract says.
    pub async fn answer(&self, delivery: &Delivery, answer: Answer) {
        let answer = Answer { id: delivery.request.id.clone(), ..answer };
        let (payload, user_properties) = answer::encode(&answer, delivery.request.answer_form());
        self.publish(delivery, payload, user_properties).await;
    }

    pub async fn publish(&self, delivery: &Delivery, payload: Bytes, user_properties: Vec<(String, String)>) {
        let asked = delivery.publish.properties.clone().unwrap_or_default();
        let properties = PublishProperties {
            correlation_data: asked.correlation_data,
            user_properties,
            ..PublishProperties::default()
        };
        let asked_on = topic::parse_request(delivery.topic()).unwrap();
        // None in MQTT 3.1.1.
        let topic = asked.response_topic.unwrap_or_else(|| topic::result(asked_on.reply_id));
        // That of the request, which the broker has.
        let qos = delivery.publish.qos;
        self.client.publish_with_properties(topic, qos, false, payload, properties).await.unwrap();
    }
}

/// The answer of a program that printed this and ended with this code.
pub fn exited(code: i32, stdout: impl Into<Bytes>, stderr: impl Into<Bytes>) -> Answer {
    Answer {
        id: None,
        outcome: Outcome::Exited(code),
        stdout: stdout.into(),
        content_range: None,
        stderr: stderr.into(),
        fuel: 1,
        run_us: 2,
        queue_us: 3,
    }
}

/// The form in which a test reads what `--json` prints.
pub const ENVELOPE: AnswerForm = AnswerForm::Json;

/// `offload-client` with these arguments, for this broker.
pub fn command(broker: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offload-client"));
    command.args(args).env("OFFLOAD_BROKER", broker).env("OFFLOAD_CONFIG", "/dev/null").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, stdout and stderr at its end.
pub async fn output(child: Child) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        timeout(DEADLINE, child.wait_with_output()).await.expect("the command ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("it exits"), text(stdout), text(stderr))
}
