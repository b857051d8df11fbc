//! The broker as a process.

use std::{
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use offload_broker::{
    Application, BoxFuture, Broker, ClientCertificates, ClientInfo, Config, Identity, Login, Reason, Refusal,
    Route, Transport,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdin, ChildStdout, Command},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

use crate::certificates::Authority;

/// Makes this program the broker.
pub const ARGUMENT: &str = "broker";
/// What honest clients log in with, and nobody else can.
pub const PASSWORD: &str = "honest";
/// With what the topics and client ids of honest clients begin.
pub const HONEST: &str = "honest";

/// So tight that abuse meets them all the time.
fn limits() -> Config {
    Config {
        max_packet_size: 1024 * 1024,
        session_queue_bytes: 2 * 1024 * 1024,
        max_queued_bytes: 48 * 1024 * 1024,
        max_retained_messages: 2_000,
        max_retained_bytes: 8 * 1024 * 1024,
        max_sessions: 8_000,
        // The crowd is to stay, however busy the machine is.
        connect_timeout: Duration::from_secs(600),
        write_timeout: Duration::from_secs(2),
        ..Config::default()
    }
}

/// Keeps strangers away from the topics and client ids of honest clients; otherwise they may do what they like.
struct Door;

impl Application for Door {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        let honest = login.password.as_deref() == Some(PASSWORD.as_bytes());
        let stolen = login.client_id.starts_with(HONEST) && !honest;
        Box::pin(async move {
            match (stolen, honest) {
                (true, _) => Err(Reason::NotAuthorized.into()),
                (_, true) => Ok(Identity { user: Some(HONEST.into()), ..Identity::default() }),
                (_, false) => Ok(Identity::default()),
            }
        })
    }

    fn route(&self, client: &ClientInfo, topic: &str) -> Route {
        if topic.starts_with(HONEST) && client.user.is_none() { Route::Refuse } else { Route::Broker }
    }
}

/// Prints its ports, serves until its input ends, and prints its counters. `RUST_LOG` says what it logs.
pub async fn serve() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // A panic that only ends a task is a finding, too.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::abort();
    }));
    let broker = Broker::new(limits(), Arc::new(Door));
    let authority = Authority::new();
    let tls = Transport::Tls(authority.server().tls(ClientCertificates::NotAsked));
    let shutdown = CancellationToken::new();
    let mut serving = Vec::new();
    for transport in [Transport::Tcp, tls] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap());
        let (broker, shutdown) = (broker.clone(), shutdown.clone());
        serving.push(tokio::spawn(async move { broker.serve(listener, transport, shutdown).await }));
    }
    spawn_blocking(|| std::io::read_to_string(std::io::stdin())).await.unwrap().unwrap();
    println!("{:?}", broker.stats());
    shutdown.cancel();
    for serving in serving {
        serving.await.unwrap().unwrap();
    }
}

/// That process, from outside. It ends with this one.
pub struct BrokerProcess {
    process: Child,
    /// Ends the process when it is closed. Kept here because waiting for a process would close it.
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    pub mqtt: SocketAddr,
    pub tls: SocketAddr,
}

impl BrokerProcess {
    pub async fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut address = async || output.next_line().await.unwrap().expect("a port").parse().unwrap();
        let (mqtt, tls) = (address().await, address().await);
        Self { process, input, output, mqtt, tls }
    }

    pub fn id(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    pub async fn ended(&mut self) -> ExitStatus {
        self.process.wait().await.unwrap()
    }

    /// Stops it; returns its counters.
    pub async fn stop(mut self) -> String {
        drop(self.input);
        let stats = self.output.next_line().await.unwrap().expect("its counters");
        let status = self.process.wait().await.unwrap();
        assert!(status.success(), "the broker ended badly: {status}");
        stats
    }
}
