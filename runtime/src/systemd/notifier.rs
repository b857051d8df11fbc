//! What the service manager is told (`sd_notify(3)`): that requests are taken, that the configuration is read again,
//! that the gateway stops, and every now and then that it is still alive.

use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Part of the manager's time within which it is told that the gateway lives: one message may be late.
const WATCHDOG_SHARE: u32 = 2;

/// The way to the service manager; without one, messages go nowhere.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// To the manager that the environment names. One that cannot be reached is logged, and not told anything.
    pub fn from_environment() -> Notifier {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(address) = variable("NOTIFY_SOCKET") else { return Notifier::default() };
        let watchdog = watchdog_time(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            std::process::id(),
        );
        match Notifier::to(&address, watchdog) {
            Ok(notifier) => notifier,
            Err(error) => {
                tracing::warn!(%error, ?address, "the service manager cannot be told anything");
                Notifier::default()
            }
        }
    }

    /// To the socket at this address: a path, or an abstract name behind an `@`.
    fn to(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Notifier> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read is no reason to wait.
        socket.set_nonblocking(true)?;
        Ok(Notifier { manager: Some((socket, address)), watchdog })
    }

    /// Time between two [`alive`](Self::alive), where the manager wants them.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / WATCHDOG_SHARE)
    }

    /// Requests are taken; after a reload too. The status is for people.
    pub fn ready(&self, status: impl Display) {
        self.send(format_args!("READY=1\nSTATUS={status}"));
    }

    /// The configuration is read again; [`ready`](Self::ready) follows.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(format_args!(
            "RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration again"
        ));
    }

    /// The gateway drains, and then ends.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining: requests that run may finish");
    }

    /// The gateway does its work.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, message: impl Display) {
        if let Some((socket, address)) = &self.manager
            && let Err(error) = socket.send_to_addr(message.to_string().as_bytes(), address)
        {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

/// The time after which the manager ends a process that is silent, if it means this process.
fn watchdog_time(micros: Option<&OsStr>, of: Option<&OsStr>, own: u32) -> Option<Duration> {
    let is_meant = of.is_none_or(|id| id.to_str() == Some(&own.to_string()));
    let micros = micros?.to_str()?.parse().ok().filter(|micros| *micros > 0 && is_meant)?;
    Some(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn the_manager_hears_each_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str(), Some(Duration::from_secs(4))).unwrap();
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(2)));
        notifier.ready("listening");
        assert_eq!(received(&manager), "READY=1\nSTATUS=listening");
        notifier.reloading();
        let reloading = received(&manager);
        let rest = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(rest.split('\n').next().unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
        notifier.alive();
        assert_eq!(received(&manager), "WATCHDOG=1");
        notifier.stopping();
        assert!(received(&manager).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn an_abstract_name_is_one_without_a_file() {
        let name = format!("offload-rt-notifier-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::to(OsStr::new(&format!("@{name}")), None).unwrap();
        notifier.alive();
        notifier.ready("listening");
        assert!(received(&manager).starts_with("READY=1"), "no watchdog is wanted, and none told");
    }

    #[test]
    fn the_watchdogs_time_is_that_of_the_process_it_names() {
        let time =
            |micros: &str, of: Option<&str>| watchdog_time(Some(OsStr::new(micros)), of.map(OsStr::new), 7);
        assert_eq!(time("2000000", Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(time("2000000", None), Some(Duration::from_secs(2)));
        assert_eq!(time("2000000", Some("8")), None);
        assert_eq!((time("0", None), time("soon", None)), (None, None));
        assert_eq!(watchdog_time(None, None, 7), None);
    }
}
