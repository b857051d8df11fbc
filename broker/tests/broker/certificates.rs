//! Certificates for one test, as a first set-up of a gateway has them.

use std::sync::Arc;

use offload_broker::{Certificates, ClientCertificates, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A CA.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Certified {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = named(Some("test CA"), &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certifies a common name, or DNS names, or both.
    pub fn certify(&self, common_name: Option<&str>, dns: &[&str]) -> Certified {
        let key = KeyPair::generate().unwrap();
        let certificate = named(common_name, dns).signed_by(&key, &self.issuer).unwrap();
        Certified { chain: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn server(&self) -> Certified {
        self.certify(Some("broker"), &["localhost"])
    }

    /// A client that trusts this CA alone, and shows a certificate if it has one.
    pub fn client(&self, certified: Option<&Certified>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match certified {
            None => builder.with_no_client_auth(),
            Some(Certified { chain, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }
}

impl Certified {
    pub fn with<'a>(&'a self, clients: ClientCertificates<'a>) -> Certificates<'a> {
        Certificates { chain: self.chain.as_bytes(), key: self.key.as_bytes(), clients }
    }

    pub fn tls(&self, clients: ClientCertificates<'_>) -> Tls {
        Tls::new(&self.with(clients)).unwrap()
    }
}

fn named(common_name: Option<&str>, dns: &[&str]) -> CertificateParams {
    let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(dns).unwrap();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params
}
