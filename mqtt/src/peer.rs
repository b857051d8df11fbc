//! What answers where a broker should.
//!
//! Each protocol keeps silent when it hears another one, or answers in a way that only its own clients understand. So a
//! connection that does not come about is looked into by connections of their own, which say what the others want to
//! hear.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::stream::{Stream, open};
use crate::{ConnectionOptions, one_line};

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of an answer that are looked at.
const MAX_ANSWER: u64 = 128;
/// What an HTTP server answers.
const HTTP_REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
/// What every broker answers, be it to refuse it: a CONNECT of MQTT 3.1.1 with a clean session and no client id
/// (section 3.1).
const MQTT_CONNECT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x05\x00\x00";
/// First byte of a CONNACK, of either version of MQTT.
const CONNACK: u8 = 0x20;
/// First byte of a DISCONNECT of MQTT 5.
const DISCONNECT: u8 = 0xE0;
/// First byte of TLS's alerts and handshakes (RFC 8446, section 5.1), and the first of its version.
const TLS_RECORDS: [[u8; 2]; 2] = [[0x15, 0x03], [0x16, 0x03]];

/// What answers. Its text says that, and what to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// TLS, where none was spoken.
    Tls,
    /// MQTT without TLS, where that was spoken.
    PlainMqtt,
    /// HTTP.
    Http,
    /// Something else, and how its answer begins.
    Other(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PORTS: &str = "MQTT's is usually 1883, with TLS 8883";
        match self {
            Peer::Tls => f.write_str(
                "TLS answers on this port: try mqtts:// instead of mqtt://, with the cafile of the authority that \
                 vouches for the broker",
            ),
            Peer::PlainMqtt => f.write_str(
                "MQTT without TLS answers on this port: try mqtt:// without files for TLS, or the broker's port for \
                 TLS, usually 8883",
            ),
            Peer::Http => write!(f, "HTTP answers on this port, not MQTT: try another port; {PORTS}"),
            Peer::Other(answer) => write!(f, "`{answer}` answers on this port, not MQTT: try another port; {PORTS}"),
        }
    }
}

impl ConnectionOptions {
    /// Finds out what answers at the broker's address, at which no MQTT came about. `None` where that is a broker, or
    /// nothing that is known. Takes a second at most.
    pub async fn identify_peer(&self) -> Option<Peer> {
        identify(self.bare_host(), self.port, self.tls.as_ref()).await
    }
}

async fn identify(host: &str, port: u16, tls: Option<&Arc<ClientConfig>>) -> Option<Peer> {
    let ask = async |tls: Option<&Arc<ClientConfig>>, question: &[u8]| {
        let exchange = async { exchange(open(host, port, tls).await.ok()?, question).await };
        timeout(PATIENCE, exchange).await.ok().flatten()
    };
    let by_tls = tls.is_some();
    let other_than_tls = if by_tls { MQTT_CONNECT.to_vec() } else { client_hello() };
    let (first, second) = tokio::join!(ask(None, &other_than_tls), ask(tls, HTTP_REQUEST));
    [first, second].into_iter().flatten().find_map(|answer| judge(&answer, by_tls))
}

/// Says something and returns how the answer begins.
async fn exchange(mut stream: Box<dyn Stream>, question: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(question).await.ok()?;
    let mut answer = vec![0; MAX_ANSWER as usize];
    let count = stream.read(&mut answer).await.ok()?;
    answer.truncate(count);
    Some(answer)
}

fn judge(answer: &[u8], by_tls: bool) -> Option<Peer> {
    match answer {
        [] => None,
        [first, second, ..] if TLS_RECORDS.contains(&[*first, *second]) => (!by_tls).then_some(Peer::Tls),
        [CONNACK | DISCONNECT, ..] => by_tls.then_some(Peer::PlainMqtt),
        answer if answer.starts_with(b"HTTP/") => Some(Peer::Http),
        answer => {
            let text = String::from_utf8_lossy(answer);
            Some(Peer::Other(one_line(text.lines().next().unwrap_or_default())))
        }
    }
}

/// How a client of TLS begins, whomever it trusts.
fn client_hello() -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.expect("ring has what TLS needs").with_root_certificates(RootCertStore::empty());
    let name = ServerName::try_from("localhost").expect("it is a name");
    let connection = ClientConnection::new(Arc::new(config.with_no_client_auth()), name);
    let mut hello = Vec::new();
    let mut connection = connection.expect("a name and a configuration are enough");
    connection.write_tls(&mut hello).expect("memory takes it");
    hello
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// What is found where each connection is served like this.
    async fn found<F: Future<Output = ()> + Send + 'static>(
        tls: Option<&Arc<ClientConfig>>,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Option<Peer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        let peer = identify("127.0.0.1", port, tls).await;
        server.abort();
        peer
    }

    /// Answers what begins as it expects, and closes the connection on all else.
    async fn answer(mut stream: TcpStream, expected: &'static [u8], answer: &'static [u8]) {
        let mut question = vec![0; 1024];
        let count = stream.read(&mut question).await.unwrap();
        if question[..count].starts_with(expected) {
            stream.write_all(answer).await.unwrap();
        }
    }

    /// A server's TLS, and a client's that trusts it.
    fn tls() -> (TlsAcceptor, Arc<ClientConfig>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        let server = rustls::ServerConfig::builder_with_provider(provider());
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let server = server.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        (TlsAcceptor::from(Arc::new(server)), Arc::new(client))
    }

    #[tokio::test]
    async fn what_answers_is_named() {
        let http = |stream| answer(stream, b"GET ", b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert_eq!(found(None, http).await, Some(Peer::Http));
        // Some answer to whatever comes.
        let http = |stream| answer(stream, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert_eq!(found(None, http).await, Some(Peer::Http));
        let banner = |stream| answer(stream, b"", b"SSH-2.0-OpenSSH_9.2\r\n\x07");
        let ssh = Some(Peer::Other("SSH-2.0-OpenSSH_9.2".to_owned()));
        assert_eq!(found(None, banner).await, ssh);
        let (acceptor, config) = tls();
        let server = acceptor.clone();
        let by_tls = move |stream| {
            let acceptor = server.clone();
            async move { drop(acceptor.accept(stream).await) }
        };
        assert_eq!(found(None, by_tls).await, Some(Peer::Tls));
        let https = move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
                stream.flush().await.unwrap();
            }
        };
        assert_eq!(found(Some(&config), https).await, Some(Peer::Http));
        let plain = |stream| answer(stream, b"\x10", b"\x20\x02\x00\x05");
        assert_eq!(found(Some(&config), plain).await, Some(Peer::PlainMqtt));
    }

    #[tokio::test]
    async fn a_broker_is_none_of_these_and_neither_is_silence() {
        let broker = |stream| answer(stream, b"\x10", b"\x20\x02\x00\x00");
        assert_eq!(found(None, broker).await, None);
        let newer = |stream| answer(stream, b"", b"\xe0\x01\x81");
        assert_eq!(found(None, newer).await, None);
        let (acceptor, config) = tls();
        let by_tls = move |stream| {
            let acceptor = acceptor.clone();
            async move { drop(acceptor.accept(stream).await) }
        };
        assert_eq!(found(Some(&config), by_tls).await, None);
        assert_eq!(identify("127.0.0.1", 1, None).await, None);
    }

    #[test]
    fn it_says_what_to_try() {
        for (peer, advice) in [
            (Peer::Tls, "mqtts://"),
            (Peer::PlainMqtt, "mqtt://"),
            (Peer::Http, "another port"),
            (Peer::Other("SSH".to_owned()), "`SSH` answers on this port"),
        ] {
            assert!(peer.to_string().contains(advice), "{peer}");
        }
    }
}
