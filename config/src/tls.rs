//! `[tls]`: MQTT over TLS on a port of its own.

use super::table::table;
use super::{HostPort, Refusal};
use std::path::PathBuf;

table! {
    /// MQTT over TLS on a port of its own. `offload-rt keygen` makes certificates to start with. Changed files take
    /// effect for new connections within seconds.
    pub struct Tls {
        /// Where to listen; port 0 picks a free one.
        pub address: HostPort = HostPort::new("127.0.0.1", 8883);
        /// The server's certificate and those that lead to its CA, in PEM.
        pub certificate: PathBuf = PathBuf::new();
        /// The certificate's private key, in PEM.
        pub key: PathBuf = PathBuf::new();
        /// CA certificates, in PEM, that verify clients: the common name of a client's certificate is its user name,
        /// and it needs no password.
        pub client_ca: Option<PathBuf> = None;
        /// Whether a client without a certificate is refused.
        pub require_certificate: bool = false;
    }
}

impl Tls {
    pub(super) fn check(&self, refusals: &mut Vec<Refusal>) {
        for (key, path) in [("certificate", &self.certificate), ("key", &self.key)] {
            if path.as_os_str().is_empty() {
                let refusal = Refusal::new(format!("tls.{key}"), "the file is missing");
                refusals.push(refusal.accepting("a PEM file; `offload-rt keygen` makes one"));
            }
        }
        if self.require_certificate && self.client_ca.is_none() {
            let problem = "no client could have a certificate: `tls.client_ca` is missing";
            let refusal = Refusal::new("tls.require_certificate", problem).beside("tls.client_ca");
            refusals.push(refusal.accepting("false, or a `tls.client_ca`"));
        }
    }
}
