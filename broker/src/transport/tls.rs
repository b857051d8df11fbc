//! TLS: the server's certificates, and whom those of clients name.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use parking_lot::RwLock;
use rustls::{
    InvalidMessage, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::{
    error::{Error, TlsPart},
    transport::protocol_mismatch,
};

/// What a server shows and asks for in a TLS handshake, all of it PEM.
#[derive(Clone, Copy)]
pub struct Certificates<'a> {
    /// The server's certificate, and after it those between it and its CA.
    pub chain: &'a [u8],
    /// The private key of the first: PKCS #8, PKCS #1 or SEC 1.
    pub key: &'a [u8],
    /// Whether clients have certificates too.
    pub clients: ClientCertificates<'a>,
}

/// What a server asks its clients for.
#[derive(Clone, Copy, Debug, Default)]
pub enum ClientCertificates<'a> {
    /// Nothing.
    #[default]
    NotAsked,
    /// A certificate that one of these CAs has signed, or none; any other ends the handshake.
    Optional {
        /// The CAs.
        ca: &'a [u8],
    },
    /// A certificate that one of these CAs has signed.
    Required {
        /// The CAs.
        ca: &'a [u8],
    },
}

/// The server's side of TLS 1.2 and 1.3. Clones are handles to the same one.
#[derive(Clone)]
pub struct Tls {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// With these certificates.
    ///
    /// # Errors
    /// When one of them cannot be read, or the key is not the certificate's.
    pub fn new(certificates: &Certificates<'_>) -> Result<Self, Error> {
        Ok(Self { config: Arc::new(RwLock::new(Arc::new(config(certificates)?))) })
    }

    /// Uses other certificates from now on, and resumes no TLS session from before. Connections that are there stay
    /// as they are.
    ///
    /// # Errors
    /// As [`new`](Self::new); the former ones are then kept.
    pub fn replace(&self, certificates: &Certificates<'_>) -> Result<(), Error> {
        let config = Arc::new(config(certificates)?);
        *self.config.write() = config;
        Ok(())
    }

    /// Shakes hands, and says whom the client's certificate names.
    pub(crate) async fn accept(
        &self,
        socket: TcpStream,
    ) -> io::Result<(Box<TlsStream<TcpStream>>, Option<String>)> {
        let config = self.config.read().clone();
        let socket = TlsAcceptor::from(config).accept(socket).await.map_err(explained)?;
        let certificate = socket.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let subject = certificate.and_then(subject);
        Ok((Box::new(socket), subject))
    }
}

/// Says what happened where nothing that came looks like TLS.
fn explained(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|error| error.downcast_ref());
    match cause {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            io::Error::new(io::ErrorKind::InvalidData, protocol_mismatch::ON_TLS)
        }
        _ => error,
    }
}

fn config(certificates: &Certificates<'_>) -> Result<ServerConfig, Error> {
    let chain = read(TlsPart::Certificate, certificates.chain)?;
    let key = PrivateKeyDer::from_pem_slice(certificates.key).map_err(wrong(TlsPart::Key))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(wrong(TlsPart::Protocol))?;
    let verifier = |ca| -> Result<_, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in read(TlsPart::ClientCa, ca)? {
            roots.add(certificate).map_err(wrong(TlsPart::ClientCa))?;
        }
        Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider))
    };
    let builder = match certificates.clients {
        ClientCertificates::NotAsked => builder.with_no_client_auth(),
        ClientCertificates::Optional { ca } => {
            let verifier = verifier(ca)?.allow_unauthenticated().build();
            builder.with_client_cert_verifier(verifier.map_err(wrong(TlsPart::ClientCa))?)
        }
        ClientCertificates::Required { ca } => {
            let verifier = verifier(ca)?.build();
            builder.with_client_cert_verifier(verifier.map_err(wrong(TlsPart::ClientCa))?)
        }
    };
    builder.with_single_cert(chain, key).map_err(wrong(TlsPart::Pair))
}

fn read(what: TlsPart, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates.map_err(wrong(what))? {
        none if none.is_empty() => Err(wrong(what)("no certificate in it")),
        certificates => Ok(certificates),
    }
}

fn wrong<E: Into<Box<dyn StdError + Send + Sync>>>(what: TlsPart) -> impl Fn(E) -> Error {
    move |error| Error::Certificates { what, error: error.into() }
}

/// The common name of a certificate, or else its first DNS name.
fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let fields = certificate.tbs_certificate();
    let common_name = fields.subject().common_name().ok().flatten().map(|name| name.value().into_owned());
    common_name.filter(|name| !name.is_empty()).or_else(|| {
        let (_, SubjectAltName(names)) = fields.get_extension().ok()??;
        names.into_iter().find_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            _ => None,
        })
    })
}
