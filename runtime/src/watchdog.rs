//! The watchdog: a client of the gateway's own broker that sends itself a message through all of it, from the socket to
//! the application and back, and says so when that does not come back.
//!
//! It has a thread and a runtime of its own, so that it sees what has stopped the gateway's. Its connection is made
//! once and kept: a broker that is full of others' connections is busy, and not unresponsive.

use crate::config;
use offload_mqtt::{ConnectionOptions, Event, Message, QoS, Subscription, Version, open};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Exit code of a process whose broker does not answer: `EX_SOFTWARE` of BSD's sysexits.
pub const EXIT_UNRESPONSIVE: i32 = 70;

/// The watchdog's user name. No other user's name begins with `$`.
const NAME: &str = "$watchdog";
/// Pause after a lost connection.
const RETRY: Duration = Duration::from_millis(200);
/// Packets that wait for the connection: a subscription and a message, and as many again when it is made anew.
const MAX_QUEUED: usize = 8;

/// What tells the watchdog from others: known to this process alone.
#[derive(Clone)]
pub struct Credentials {
    secret: Arc<str>,
    topic: Arc<str>,
}

impl Credentials {
    /// A new one, for the gateway of this name.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub fn new(gateway: &str) -> Result<Credentials, getrandom::Error> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        let secret = format!("{:032x}", u128::from_ne_bytes(secret));
        Ok(Credentials { secret: secret.into(), topic: format!("gateway/{gateway}/watchdog").into() })
    }

    /// The watchdog's user name, if these are its credentials.
    pub fn identify(&self, name: Option<&str>, password: Option<&[u8]>) -> Option<Arc<str>> {
        let is_watchdog = name == Some(NAME) && password == Some(self.secret.as_bytes());
        is_watchdog.then(|| NAME.into())
    }

    /// Whether this is the watchdog with its topic, which is nobody else's.
    pub fn is_own(&self, user: Option<&str>, topic: &str) -> bool {
        user == Some(NAME) && topic == &*self.topic
    }
}

/// Watches the broker at `address` until `stop`. `on_return` is called for each message that comes back, `on_timeout`
/// with the reason, once, when one does not.
///
/// # Errors
///
/// When the system gives no thread.
pub fn start(
    address: SocketAddr,
    credentials: Credentials,
    config: config::Watchdog,
    stop: CancellationToken,
    on_return: impl Fn() + Send + 'static,
    on_timeout: impl FnOnce(String) + Send + 'static,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watching = async move {
        tokio::select! {
            reason = watch(address, &credentials, &config, on_return) => on_timeout(reason),
            () = stop.cancelled() => {}
        }
    };
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || runtime.block_on(watching)).map(drop)
}

/// Sends messages for as long as they come back. Otherwise says what was wrong.
async fn watch(
    address: SocketAddr,
    credentials: &Credentials,
    config: &config::Watchdog,
    on_return: impl Fn(),
) -> String {
    let (interval, timeout) = (config.interval.duration(), config.timeout.duration());
    let (sender, mut connection) = open(ConnectionOptions {
        version: Version::V311,
        credentials: Some((NAME.to_owned(), credentials.secret.to_string())),
        max_queued: MAX_QUEUED,
        ..ConnectionOptions::new(address.ip().to_string(), address.port(), "")
    });
    let publish = |number: u64| {
        // A full queue is that of a connection that takes nothing: the deadline finds it.
        let _ = sender.publish(Message::new(&*credentials.topic, number.to_string()));
    };

    let mut number = 0;
    let mut missing = true;
    let mut deadline = Instant::now() + timeout;
    let mut lost = None;
    loop {
        let event = {
            // Polled to its end: half an event could be the message.
            let mut next = pin!(connection.next());
            loop {
                tokio::select! {
                    event = &mut next => break event,
                    () = sleep_until(deadline) => {
                        if missing {
                            let why = lost.map_or_else(String::new, |error| format!(" ({error})"));
                            return format!("a message did not come back through the broker within {timeout:?}{why}");
                        }
                        number += 1;
                        missing = true;
                        deadline = Instant::now() + timeout;
                        publish(number);
                    }
                }
            }
        };
        match event {
            Ok(Event::Connected(_)) => {
                let _ = sender.subscribe(&[Subscription::new(&*credentials.topic, QoS::AtLeastOnce)]);
                publish(number);
            }
            Ok(Event::Message { message, .. }) if message.payload == number.to_string() => {
                missing = false;
                on_return();
                deadline = Instant::now() + interval;
            }
            Ok(_) => {}
            Err(error) => {
                lost = Some(error.to_string());
                sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TimeSpan;
    use std::io::Read;
    use std::net::TcpListener;
    use std::sync::mpsc;

    fn hasty() -> config::Watchdog {
        config::Watchdog {
            timeout: TimeSpan::millis(200),
            interval: TimeSpan::millis(100),
            ..Default::default()
        }
    }

    #[test]
    fn a_broker_that_takes_everything_and_says_nothing_is_unresponsive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            std::io::copy(&mut socket.by_ref(), &mut std::io::sink())
        });
        let (sender, timeouts) = mpsc::channel();
        let on_timeout = move |reason| sender.send(reason).unwrap();
        let credentials = Credentials::new("g").unwrap();
        start(address, credentials, hasty(), CancellationToken::new(), || {}, on_timeout).unwrap();
        let reason = timeouts.recv().unwrap();
        assert!(reason.contains("did not come back"), "{reason}");
        silent.join().unwrap().unwrap();
    }

    #[test]
    fn only_the_watchdog_has_its_badge() {
        let credentials = Credentials::new("g").unwrap();
        let secret = credentials.secret.clone();
        assert!(credentials.identify(Some(NAME), Some(secret.as_bytes())).is_some());
        for (name, password) in
            [(Some(NAME), None), (Some(NAME), Some(&b"guess"[..])), (None, Some(secret.as_bytes()))]
        {
            assert!(credentials.identify(name, password).is_none());
        }
        assert!(credentials.is_own(Some(NAME), "gateway/g/watchdog"));
        assert!(!credentials.is_own(Some("plc"), "gateway/g/watchdog"));
        assert!(!credentials.is_own(Some(NAME), "gateway/g/status"));
    }
}
