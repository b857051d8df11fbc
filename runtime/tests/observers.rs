//! Whoever observes a gateway sees each request, and the answer to each exactly once, whatever becomes of it.

#[path = "embedded/client.rs"]
mod client;

use std::sync::{Arc, Mutex};

use client::{Client, PATIENCE};
use offload_protocol::answer::{Answer, Outcome};
use offload_protocol::error::ErrorKind;
use offload_rt::Gateway;
use offload_rt::config::{Config, Durability, HostPort, TimeSpan};
use offload_rt::request::Observer;
use offload_rt::request::observer::{AnswerObserver, Arrival};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::timeout;

/// What was seen of each request, in the order of their arrival: its payload, and the answers to it.
type Seen = Arc<Mutex<Vec<(String, Vec<Ending>)>>>;

/// An exit code, or what went wrong.
type Ending = Result<i32, ErrorKind>;

struct Recorder {
    seen: Seen,
    requests: watch::Sender<usize>,
}

struct Recording {
    seen: Seen,
    number: usize,
}

impl Observer for Recorder {
    fn request(&self, arrival: &Arrival<'_>) -> Option<Box<dyn AnswerObserver>> {
        let mut seen = self.seen.lock().unwrap();
        let number = seen.len();
        seen.push((String::from_utf8_lossy(arrival.payload).into_owned(), Vec::new()));
        self.requests.send_replace(seen.len());
        Some(Box::new(Recording { seen: self.seen.clone(), number }))
    }
}

impl AnswerObserver for Recording {
    fn answer(self: Box<Self>, answer: &Answer) {
        let ending = match &answer.outcome {
            Outcome::Exited(code) => Ok(*code),
            Outcome::Failed(error) => Err(error.kind),
        };
        self.seen.lock().unwrap()[self.number].1.push(ending);
    }
}

async fn start(recorder: Arc<Recorder>, folder: &TempDir) -> Gateway {
    // With a journal, what is stopped would be answered after the next start.
    let durability = Durability::Off;
    let data_dir = folder.path().join("data");
    let mut config = Config { drain: TimeSpan::ZERO, data_dir, durability, ..Config::default() };
    config.listen.address = HostPort::new("127.0.0.1", 0);
    config.compiler.program = Some(env!("CARGO_BIN_EXE_offload-rt").into());
    Gateway::start_observed(config, vec![recorder]).await.unwrap()
}

/// A module of two instructions in an envelope, with these fields beside it. It never ends.
fn endless(fields: &str) -> String {
    let module =
        wat::parse_str("(module (memory (export \"memory\") 1) (func (export \"_start\") (loop br 0)))");
    let module = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, module.unwrap());
    format!(r#"{{"module":"{module}",{fields}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_is_seen_once() {
    let seen = Seen::default();
    let recorder = Arc::new(Recorder { seen: seen.clone(), requests: watch::Sender::new(0) });
    let mut requests = recorder.requests.subscribe();
    let folder = TempDir::new().unwrap();
    let gateway = start(recorder, &folder).await;
    let mut client = Client::connect(gateway.address().unwrap(), "d").await;
    client.subscribe("result/d").await;

    // Answered one after the other, so that repetitions find an outcome.
    let mut expected: Vec<(&str, Ending)> = vec![
        ("a run", Ok(0)),
        ("a payload that is no request", Err(ErrorKind::Malformed)),
        ("a program that is not there", Err(ErrorKind::NotFound)),
        ("a run with an id", Ok(0)),
        ("its repetition", Ok(0)),
        ("another request with that id", Err(ErrorKind::Malformed)),
        ("a request whose time runs out", Err(ErrorKind::Expired)),
    ];
    for (topic, payload) in [
        ("localCode/d", "1 2".to_owned()),
        ("inputCode/d", "no request".to_owned()),
        ("localCode/d", r#"{"program":"none"}"#.to_owned()),
        ("localCode/d", r#"{"id":"a","program":"add","args":["1","2"]}"#.to_owned()),
        ("localCode/d", r#"{"id":"a","program":"add","args":["1","2"]}"#.to_owned()),
        ("localCode/d", r#"{"id":"a","program":"add","args":["3","4"]}"#.to_owned()),
        ("inputCode/d", endless(r#""timeout_ms":0"#)),
    ] {
        client.publish(topic, payload).await;
        client.messages(1, 1).await;
    }

    // One that runs, and its repetition, which waits for the same outcome: the gateway stops before there is one.
    let endless = endless(r#""id":"b""#);
    for _ in 0..2 {
        client.publish("inputCode/d", endless.clone()).await;
    }
    let all = expected.len() + 2;
    let arrived = async { drop(requests.wait_for(|count| *count == all).await.expect("recorder alive")) };
    timeout(PATIENCE, client.send_until(arrived)).await.expect("requests in time");
    expected
        .extend([("a run that is stopped", Err(ErrorKind::Busy)), ("its repetition", Err(ErrorKind::Busy))]);
    gateway.shutdown().await;

    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), expected.len());
    for ((payload, endings), (what, expected)) in seen.iter().zip(&expected) {
        assert_eq!(endings[..], [*expected], "{what}: {payload}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_has_shut_down_keeps_no_observer() {
    let recorder = Arc::new(Recorder { seen: Seen::default(), requests: watch::Sender::new(0) });
    let mut requests = recorder.requests.subscribe();
    let folder = TempDir::new().unwrap();
    let gateway = start(recorder, &folder).await;
    let mut client = Client::connect(gateway.address().unwrap(), "d").await;
    client.subscribe("result/d").await;
    client.publish("localCode/d", "1 2").await;
    client.messages(1, 1).await;
    gateway.shutdown().await;
    let dropped = async { while requests.changed().await.is_ok() {} };
    timeout(PATIENCE, dropped).await.expect("nothing keeps the observer, nor the pipeline that has it");
}
