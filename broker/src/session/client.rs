//! Clients: what one shows of itself when it connects, and who it is from then on.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
};

use crate::{
    quotas::account::{self, Account},
    session::Session,
    transport::peer::TransportKind,
    version::Version,
};

/// What a client says and shows of itself in its CONNECT and below it.
pub struct Login {
    /// As the client asks for it; empty if the broker is to choose one.
    pub client_id: String,
    /// The user name, which may be empty.
    pub user_name: Option<String>,
    /// The password. `Debug` does not show it, and nothing logs it.
    pub password: Option<Vec<u8>>,
    /// The name in a client certificate that was verified: its common name, or its first DNS name if it has none.
    pub certificate: Option<String>,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// How it is connected.
    pub transport: TransportKind,
    /// The version of MQTT that it speaks.
    pub version: Version,
    /// The web page's origin, for a WebSocket connection that a browser opened.
    pub origin: Option<String>,
}

impl Login {
    /// The address that stands for the client as long as it is not authenticated; in IPv6 the network of 64 bits.
    pub fn source(&self) -> IpAddr {
        account::source(self.peer.ip())
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("certificate", &self.certificate)
            .field("peer", &self.peer)
            .field("transport", &self.transport)
            .field("version", &self.version)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Who a client is, once it is authenticated. A client id belongs to the user whose session it names. If that session
/// has no user, every user may take it over.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The user; `None` is an anonymous client, which is another identity than every user.
    pub user: Option<Arc<str>>,
    /// Which of the user's credentials it was authenticated by, as the application numbers them: it is shown to
    /// [`Application::confirm`](crate::Application::confirm) and in [`ClientInfo`], so that what has been replaced
    /// meanwhile is known. 0 if the application does not care.
    pub credential: u64,
}

/// One connection of a client.
pub struct ClientInfo {
    /// The session's name.
    pub client_id: Arc<str>,
    /// True if the broker chose the client id; a 3.1.1 client never learns it.
    pub assigned: bool,
    /// The user of its [`Identity`].
    pub user: Option<Arc<str>>,
    /// The credential of its [`Identity`].
    pub credential: u64,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// How it is connected.
    pub transport: TransportKind,
    /// The version of MQTT that it speaks.
    pub version: Version,
    /// Bytes of the largest packet that it takes.
    pub max_packet: usize,
    pub(crate) account: Arc<Account>,
    pub(crate) session: Weak<Session>,
}

impl ClientInfo {
    /// Names the identity that pays for what this client does, here and in the application: the user, else the address
    /// that it comes from (in IPv6 the network of 64 bits). No user is named as an address is.
    pub fn account(&self) -> &Arc<str> {
        &self.account.name
    }
}

impl fmt::Debug for ClientInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientInfo")
            .field("client_id", &self.client_id)
            .field("assigned", &self.assigned)
            .field("user", &self.user)
            .field("peer", &self.peer)
            .field("transport", &self.transport)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
