//! Listening sockets that are handed over (`sd_listen_fds(3)`). They stay open while one gateway ends and the next one
//! starts: a client that connects meanwhile waits, and is not refused.

use rustix::io::{FdFlags, fcntl_setfd};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The first descriptor that is handed over: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;
/// Most descriptors that are looked at: more than a gateway has listeners, so that one too many is named.
const MOST: RawFd = 16;

/// The listeners of a gateway, by the name (`FileDescriptorName=`) that a socket for each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `mqtt`: that of `[listen]`.
    Mqtt,
    /// `mqtts`: that of `[tls]`.
    Mqtts,
    /// `ws`: that of `[websocket]`.
    Ws,
    /// `wss`: the same, with `tls = true`.
    Wss,
}

impl Role {
    const ALL: [Role; 4] = [Role::Mqtt, Role::Mqtts, Role::Ws, Role::Wss];

    fn name(self) -> &'static str {
        match self {
            Role::Mqtt => "mqtt",
            Role::Mqtts => "mqtts",
            Role::Ws => "ws",
            Role::Wss => "wss",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The number of sockets is none.
    #[error("LISTEN_FDS is {0:?}; accepted: a number, 1 to {MOST}")]
    Count(String),
    /// The name of a socket is that of no listener.
    #[error(
        "a socket with the name {0:?} is handed over; accepted: FileDescriptorName=mqtt, mqtts, ws or wss"
    )]
    Name(String),
    /// Two sockets have one name.
    #[error("two sockets with the name {0} are handed over")]
    Twice(Role),
    /// A descriptor is no listening TCP socket.
    #[error("descriptor {descriptor} is handed over for {role}, and is no TCP socket: {error}")]
    NoSocket {
        /// The descriptor.
        descriptor: RawFd,
        /// The listener that it is for.
        role: Role,
        /// The system's reason.
        error: io::Error,
    },
    /// The configuration has no such listener.
    #[error("a socket with the name {0} is handed over, and the configuration has no such listener")]
    Unused(Role),
}

/// Sockets that wait for their listener.
#[derive(Debug, Default)]
pub struct InheritedSockets(Vec<(Role, TcpListener)>);

impl InheritedSockets {
    /// Those that the environment speaks of, if it speaks to this process. To be called once: it takes the descriptors
    /// from 3 on for its own.
    ///
    /// # Errors
    ///
    /// When a socket has no name, the name of another one, or is none.
    pub fn from_environment() -> Result<InheritedSockets, SocketError> {
        let variable = |name| std::env::var(name).ok();
        // A child of the process that is meant has the same variables.
        if variable("LISTEN_PID") != Some(std::process::id().to_string()) {
            return Ok(InheritedSockets::default());
        }
        let count = variable("LISTEN_FDS").unwrap_or_default();
        let roles = roles(&count, variable("LISTEN_FDNAMES").as_deref())?;
        let sockets = (FIRST..).zip(roles).map(|(descriptor, role)| Ok((role, socket(descriptor, role)?)));
        Ok(InheritedSockets(sockets.collect::<Result<_, SocketError>>()?))
    }

    /// Whether there is none left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where they listen.
    pub fn addresses(&self) -> impl Iterator<Item = io::Result<SocketAddr>> {
        self.0.iter().map(|(_, socket)| socket.local_addr())
    }

    /// The socket for this listener.
    pub fn take(&mut self, role: Role) -> Option<TcpListener> {
        let index = self.0.iter().position(|(of, _)| *of == role)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Whether all sockets were taken. Clients of another one would wait for ever: nobody accepts there.
    ///
    /// # Errors
    ///
    /// Names a socket that was not.
    pub fn none_left(&self) -> Result<(), SocketError> {
        self.0.first().map_or(Ok(()), |(role, _)| Err(SocketError::Unused(*role)))
    }
}

/// What each descriptor is for. One alone needs no name: systemd then gives it that of its unit.
fn roles(count: &str, names: Option<&str>) -> Result<Vec<Role>, SocketError> {
    let number = count.parse().ok().filter(|number| (1..=MOST).contains(number));
    let number = number.ok_or_else(|| SocketError::Count(count.to_owned()))? as usize;
    let names: Vec<&str> = names.map_or_else(Vec::new, |names| names.split(':').collect());
    let mut roles = Vec::new();
    for index in 0..number {
        let name = names.get(index).copied().unwrap_or_default();
        let role = match Role::ALL.into_iter().find(|role| role.name() == name) {
            Some(role) => role,
            None if number == 1 => Role::Mqtt,
            None => return Err(SocketError::Name(name.to_owned())),
        };
        if roles.contains(&role) {
            return Err(SocketError::Twice(role));
        }
        roles.push(role);
    }
    Ok(roles)
}

/// The socket that a descriptor is, kept from the children of this process.
fn socket(descriptor: RawFd, role: Role) -> Result<TcpListener, SocketError> {
    // SAFETY: the protocol gives this descriptor to this process, and nothing else in it: it was open before `main`,
    // and `from_environment` is called once, before anything could have closed it and opened another in its place.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let usable = fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(io::Error::from).and_then(|()| {
        let listener = TcpListener::from(owned);
        // Fails for what is no socket, or one of another family.
        listener.local_addr()?;
        // tokio's are; who else has the socket shares that.
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    usable.map_err(|error| SocketError::NoSocket { descriptor, role, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_known_by_their_names() {
        assert_eq!(roles("2", Some("mqtts:mqtt")).unwrap(), [Role::Mqtts, Role::Mqtt]);
        assert_eq!(roles("1", Some("offload-rt.socket")).unwrap(), [Role::Mqtt]);
        assert_eq!(roles("1", None).unwrap(), [Role::Mqtt]);
        assert_eq!(roles("1", Some("wss")).unwrap(), [Role::Wss]);
        for (count, names, problem) in [
            ("2", Some("mqtt:http"), "\"http\""),
            ("2", Some("mqtt"), "\"\""),
            ("2", Some("ws:ws"), "two sockets"),
            ("none", None, "LISTEN_FDS"),
            ("0", None, "LISTEN_FDS"),
            ("17", None, "LISTEN_FDS"),
        ] {
            let error = roles(count, names).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_socket_that_nobody_takes_is_named() {
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sockets = InheritedSockets(vec![(Role::Mqtt, socket()), (Role::Ws, socket())]);
        assert!(sockets.take(Role::Mqtts).is_none());
        assert!(sockets.take(Role::Mqtt).is_some() && sockets.take(Role::Mqtt).is_none());
        assert!(sockets.none_left().unwrap_err().to_string().contains("the name ws"));
        assert!(sockets.take(Role::Ws).is_some() && sockets.none_left().is_ok());
    }
}
