//! `[websocket]`: MQTT over WebSocket, for browsers.

use super::table::table;
use super::{HostPort, Refusal};

table! {
    /// MQTT over WebSocket, for browsers (subprotocol `mqtt`). Any web page can reach loopback, so a connection from
    /// there is not trusted: anonymous clients connect only with `access.anonymous = true`, and source is run only for
    /// clients that an `[[access.rule]]` names.
    pub struct WebSocket {
        /// Where to listen; port 0 picks a free one.
        pub address: HostPort = HostPort::new("127.0.0.1", 9001);
        /// Origins of the web pages that may connect: "https://panel.example". Clients that are no browsers send none,
        /// and may connect.
        pub origins: Vec<String> = Vec::new();
        /// Whether it is over TLS, with the certificate of `[tls]`.
        pub tls: bool = false;
    }
}

impl WebSocket {
    pub(super) fn check(&self, has_tls: bool, refusals: &mut Vec<Refusal>) {
        if self.tls && !has_tls {
            let problem = "the certificate is missing: there is no `[tls]` table";
            refusals.push(Refusal::new("websocket.tls", problem).accepting("false, or a `[tls]` table"));
        }
        for origin in &self.origins {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if host.is_none_or(|host| host.is_empty() || host.contains('/')) {
                let refusal = Refusal::new("websocket.origins", format!("{origin:?} is no origin"));
                refusals.push(refusal.accepting("`scheme://host` or `scheme://host:port`, without a path"));
            }
        }
    }
}
