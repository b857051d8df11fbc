//! The bytes below MQTT: TCP, or TLS over it.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::ConnectionError;

/// A connection's bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects. The host has no brackets: by TLS it is what the certificate says.
pub(crate) async fn open(
    host: &str,
    port: u16,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, ConnectionError> {
    let tcp = TcpStream::connect((host, port)).await?;
    // With Nagle's algorithm a round trip at QoS 1 takes 44 ms.
    tcp.set_nodelay(true)?;
    let Some(config) = tls else { return Ok(Box::new(tcp)) };
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| ConnectionError::tls(&io::Error::other(error)))?;
    let stream = TlsConnector::from(config.clone()).connect(name, tcp).await;
    Ok(Box::new(stream.map_err(|error| ConnectionError::tls(&error))?))
}
