//! The bytes below MQTT: TCP, or TLS over it.

use std::io;

use rumqttc::{TlsConfiguration, Transport};
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
    transport: &Transport,
) -> Result<Box<dyn Stream>, ConnectionError> {
    let config = match transport {
        Transport::Tcp => return Ok(Box::new(open_tcp(host, port).await?)),
        Transport::Tls(TlsConfiguration::Rustls(config)) => config.clone(),
        _ => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
    };
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| ConnectionError::tls(&io::Error::other(error)))?;
    let tcp = open_tcp(host, port).await?;
    let stream =
        TlsConnector::from(config).connect(name, tcp).await.map_err(|error| ConnectionError::tls(&error))?;
    Ok(Box::new(stream))
}

/// Connects without TLS.
async fn open_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect((host, port)).await?;
    // With Nagle's algorithm a round trip at QoS 1 takes 44 ms.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}
