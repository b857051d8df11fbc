//! `offload-rt keygen`: a certificate authority of one's own, and certificates for a gateway and its devices.

use super::output;
use crate::config::password_file;
use anyhow::{Context, bail, ensure};
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use std::fs::{self, Permissions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Common name of every authority that is made here. Which is which their keys tell.
const AUTHORITY: &str = "offload-rt CA";
/// Common name of a gateway; clients go by the names and addresses that its certificate lists.
const SERVER: &str = "offload-rt";
/// Names of the files of the two, which no device can have.
const CA_FILE: &str = "ca";
const SERVER_FILE: &str = "server";

/// Only the owner reads a key.
const KEY_MODE: u32 = 0o600;
/// A certificate is for everyone.
const CERTIFICATE_MODE: u32 = 0o644;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates count from so long ago: the clock of a small device may be slow.
const CLOCK_LEEWAY: Duration = DAY;
/// Longest validity, in days: a century.
const MAX_DAYS: u32 = 36_500;

/// The folder, and whom certificates are made for.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Keygen {
    /// Folder of the certificates and keys; existing files stay, missing ones are added
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Names and addresses of the gateway; an existing certificate keeps its own and its key [default: this machine's
    /// name, localhost, 127.0.0.1 and ::1]
    #[arg(long = "host", value_name = "NAME-OR-ADDRESS", num_args = 1.., value_parser = parse_host)]
    hosts: Vec<String>,
    /// Devices that get a certificate; its common name is the device's user name
    #[arg(long = "device", value_name = "NAME", num_args = 1.., value_parser = parse_device)]
    devices: Vec<String>,
    /// Validity of new certificates, in days
    #[arg(long, value_name = "N", default_value = "3650", value_parser = parse_days)]
    days: u32,
    /// Replace the keys of the named devices, and with --host the gateway's; never the authority's
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  offload-rt keygen keys
  offload-rt keygen keys --host gateway.local 10.0.0.5 --device dev2
  offload-rt keygen keys --device dev3 dev4
  offload-rt keygen keys --host master.example --device north south

The last line is for a master and the routers of two sites: the common name of
a router's certificate is its gate.";

fn parse_days(text: &str) -> Result<u32, String> {
    let days = text.parse().ok().filter(|days| (1..=MAX_DAYS).contains(days));
    days.ok_or_else(|| format!("accepted: an integer, 1 to {MAX_DAYS}"))
}

fn parse_host(text: &str) -> Result<String, String> {
    let host = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match ServerName::try_from(host) {
        Ok(_) => Ok(host.to_owned()),
        Err(_) => Err("expected a host name or an IP address".to_owned()),
    }
}

/// A user name that can be a file's, too.
fn parse_device(text: &str) -> Result<String, String> {
    password_file::check_name(text).map_err(|error| error.to_string())?;
    if text.contains('/') || text.starts_with('.') || [CA_FILE, SERVER_FILE].contains(&text) {
        return Err(format!(
            "a device is not called `{CA_FILE}` or `{SERVER_FILE}`, with `/`, or with a leading dot"
        ));
    }
    Ok(text.to_owned())
}

pub fn run(command: Keygen) -> anyhow::Result<ExitCode> {
    let made = generate(&command)?;
    output::print(made)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes what is missing; says what was done and what comes next.
fn generate(command: &Keygen) -> anyhow::Result<String> {
    let folder = Folder { path: std::path::absolute(&command.folder)?, force: command.force };
    let mut devices = command.devices.clone();
    devices.sort();
    devices.dedup();
    // All or nothing: what is not as keygen leaves it is found before anything is written.
    for name in [SERVER_FILE].into_iter().chain(devices.iter().map(String::as_str)) {
        folder.check_pair(name)?;
    }
    fs::create_dir_all(&folder.path).with_context(|| format!("cannot make {}", folder.path.display()))?;
    let mut done = Vec::new();
    let authority = match folder.authority()? {
        Some(authority) => {
            done.push(format!("used {}", folder.certificate(CA_FILE).display()));
            authority
        }
        None => {
            done.push(format!("made {} and its key", folder.certificate(CA_FILE).display()));
            folder.make_authority(command.days)?
        }
    };
    let (hosts, told) = make_server(&folder, command, &authority)?;
    done.push(told);
    for device in &devices {
        done.push(make_device(&folder, device, command.days, &authority)?);
    }
    Ok(format!("{}\n{}", done.join("\n"), folder.next_steps(&hosts[0], devices.first())))
}

type Authority = Issuer<'static, KeyPair>;

/// The gateway's certificate for all names that it had and those that are wanted. Returns the latter, or else all,
/// and what was done.
fn make_server(
    folder: &Folder,
    command: &Keygen,
    authority: &Authority,
) -> anyhow::Result<(Vec<String>, String)> {
    let (file, wanted) = (folder.certificate(SERVER_FILE), &command.hosts);
    // Without --host it is not what is to be made.
    let force = command.force && !wanted.is_empty();
    let is_there = folder.has(SERVER_FILE) && !force;
    let mut names = if is_there && file.exists() { subject_names(&file)? } else { Vec::new() };
    let missing: Vec<String> = wanted.iter().filter(|host| !names.contains(host)).cloned().collect();
    let first = |names: &[String]| if wanted.is_empty() { names.to_vec() } else { wanted.clone() };
    if !names.is_empty() && missing.is_empty() {
        return Ok((first(&names), format!("kept {}", file.display())));
    }
    let told = if names.is_empty() {
        format!("made {} and its key", file.display())
    } else {
        format!("added {} to {}, whose key stays", missing.join(", "), file.display())
    };
    names.extend(missing);
    if names.is_empty() {
        names = own_hosts();
    }
    folder.make(SERVER_FILE, server_params(&names, command.days)?, authority, force)?;
    Ok((first(&names), told))
}

/// A device's certificate, unless it has one. Says what was done.
fn make_device(folder: &Folder, device: &str, days: u32, authority: &Authority) -> anyhow::Result<String> {
    let file = folder.certificate(device);
    if file.exists() && !folder.force {
        return Ok(format!("kept {}", file.display()));
    }
    folder.make(device, device_params(device, days), authority, folder.force)?;
    Ok(format!("made {} and its key", file.display()))
}

/// The names and addresses that a gateway's certificate lists.
fn subject_names(file: &Path) -> anyhow::Result<Vec<String>> {
    let unreadable = || format!("cannot use {}", file.display());
    let certificate = CertificateDer::from_pem_file(file).with_context(unreadable)?;
    let certificate = x509_cert::Certificate::from_der(&certificate).with_context(unreadable)?;
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().with_context(unreadable)?;
    let names = names.into_iter().flat_map(|(_, SubjectAltName(names))| names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            GeneralName::IpAddress(address) => {
                ip_address(address.as_bytes()).map(|address| address.to_string())
            }
            _ => None,
        })
        .collect())
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The names and addresses of a gateway on this machine.
fn own_hosts() -> Vec<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // A machine may have a name that no certificate can.
    let mut hosts: Vec<String> = parse_host(&name).into_iter().collect();
    hosts.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    if hosts[0] == hosts[1] {
        hosts.remove(0);
    }
    hosts
}

fn params(common_name: &str, days: u32) -> CertificateParams {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now.saturating_sub(CLOCK_LEEWAY);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + DAY * days;
    params
}

fn authority_params(days: u32) -> CertificateParams {
    let mut params = params(AUTHORITY, days);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(common_name: &str, days: u32, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = params(common_name, days);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

fn server_params(hosts: &[String], days: u32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = leaf_params(SERVER, days, ExtendedKeyUsagePurpose::ServerAuth);
    params.subject_alt_names = CertificateParams::new(hosts)?.subject_alt_names;
    Ok(params)
}

fn device_params(name: &str, days: u32) -> CertificateParams {
    leaf_params(name, days, ExtendedKeyUsagePurpose::ClientAuth)
}

/// The folder of certificates and keys: `<name>.pem` and `<name>.key`.
struct Folder {
    path: PathBuf,
    /// Whether files are replaced.
    force: bool,
}

impl Folder {
    fn certificate(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.pem"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.key"))
    }

    fn has(&self, name: &str) -> bool {
        self.certificate(name).exists() || self.key(name).exists()
    }

    /// A certificate whose key is elsewhere is not replaced.
    fn check_pair(&self, name: &str) -> anyhow::Result<()> {
        let (certificate, key) = (self.certificate(name), self.key(name));
        ensure!(
            !certificate.exists() || key.exists(),
            "{} is there without {}: bring the key, or move the certificate away",
            certificate.display(),
            key.display()
        );
        Ok(())
    }

    /// The authority that is there.
    fn authority(&self) -> anyhow::Result<Option<Authority>> {
        if !self.has(CA_FILE) {
            return Ok(None);
        }
        let certificate = self.certificate(CA_FILE);
        if !self.key(CA_FILE).exists() {
            bail!(
                "{} is there without {}, which signs new certificates: bring the key, or name another folder",
                certificate.display(),
                self.key(CA_FILE).display()
            );
        }
        let issuer = Issuer::new(authority_params(1), read_key(&self.key(CA_FILE))?);
        let root = CertificateDer::from_pem_file(&certificate)
            .with_context(|| format!("cannot use {}", certificate.display()))?;
        if !vouches(root, &issuer)? {
            bail!("{} is not the certificate that keygen made for the key beside it", certificate.display());
        }
        Ok(Some(issuer))
    }

    fn make_authority(&self, days: u32) -> anyhow::Result<Authority> {
        let (params, key) = (authority_params(days), KeyPair::generate()?);
        // Even with --force: to lose an authority is to lose all devices.
        self.write_key(CA_FILE, &key, false)?;
        self.write(&self.certificate(CA_FILE), &params.self_signed(&key)?.pem(), CERTIFICATE_MODE, true)?;
        Ok(Issuer::new(params, key))
    }

    /// A certificate for the key that is there, or for a new one.
    fn make(
        &self,
        name: &str,
        params: CertificateParams,
        authority: &Authority,
        force: bool,
    ) -> anyhow::Result<()> {
        let file = self.key(name);
        let key = if file.exists() && !force {
            read_key(&file)?
        } else {
            let key = KeyPair::generate()?;
            self.write_key(name, &key, force)?;
            key
        };
        let certificate = params.signed_by(&key, authority)?;
        self.write(&self.certificate(name), &certificate.pem(), CERTIFICATE_MODE, true)
    }

    fn write_key(&self, name: &str, key: &KeyPair, replace: bool) -> anyhow::Result<()> {
        self.write(&self.key(name), &key.serialize_pem(), KEY_MODE, replace)
    }

    /// The whole file or none.
    fn write(&self, path: &Path, text: &str, mode: u32, replace: bool) -> anyhow::Result<()> {
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            if replace {
                file.persist(path)?
            } else {
                file.persist_noclobber(path)?
            };
            std::io::Result::Ok(())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// What to do with the files.
    fn next_steps(&self, host: &str, device: Option<&String>) -> String {
        let server = format!("{}/{SERVER_FILE}", self.path.display());
        let ca = self.certificate(CA_FILE);
        let ca = ca.display();
        let mut steps = format!(
            "\nThe gateway's configuration:\n\n  \
             [tls]\n  \
             address = \"0.0.0.0:8883\"\n  \
             certificate = \"{server}.pem\"\n  \
             key = \"{server}.key\"\n  \
             client_ca = \"{ca}\"\n"
        );
        if let Some(device) = device {
            let (certificate, key) = (self.certificate(device), self.key(device));
            let (certificate, key) = (certificate.display(), key.display());
            steps += &format!(
                "\nA device, which needs its own two files and ca.pem:\n\n  \
                 mosquitto_pub -h {host} -p 8883 --cafile {ca} --cert {certificate} --key {key} \
                 -t localCode/{device} -m '5 7'\n"
            );
        } else {
            let folder = self.path.display();
            steps += &format!(
                "\nA device with a certificate of its own, for which it needs no password:\n\n  \
                 offload-rt keygen {folder} --device NAME\n\n\
                 A device with a password (`offload-rt passwd`), which needs ca.pem:\n\n  \
                 mosquitto_pub -h {host} -p 8883 --cafile {ca} -u NAME -P PASSWORD -t localCode/NAME -m '5 7'\n"
            );
        }
        steps
    }
}

fn read_key(file: &Path) -> anyhow::Result<KeyPair> {
    let unreadable = || format!("cannot use {}", file.display());
    let text = fs::read_to_string(file).with_context(unreadable)?;
    KeyPair::from_pem(&text).with_context(unreadable)
}

/// Whether clients that trust `root` trust what `issuer` signs.
fn vouches(root: CertificateDer<'static>, issuer: &Issuer<'_, KeyPair>) -> anyhow::Result<bool> {
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    let probe = device_params("probe", 1).signed_by(&KeyPair::generate()?, issuer)?;
    Ok(verifier.verify_client_cert(probe.der(), &[], UnixTime::now()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        keygen: Keygen,
    }

    fn keygen(folder: &Path, flags: &str) -> anyhow::Result<String> {
        let words = ["keygen", folder.to_str().unwrap()].into_iter().chain(flags.split_whitespace());
        generate(&Line::try_parse_from(words)?.keygen)
    }

    fn certificates(folder: &Path, name: &str) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_file(folder.join(format!("{name}.pem"))).unwrap()]
    }

    fn key(folder: &Path, name: &str) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap()
    }

    /// Whether a device and the gateway trust each other, the gateway being called `host`. Both wants certificates.
    fn trust(folder: &Path, host: &str, device: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(certificates(folder, "ca").remove(0))?;
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier.unwrap())
            .with_single_cert(certificates(folder, "server"), key(folder, "server"))?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(folder, device), key(folder, device))?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets()?;
            let mut bytes = Vec::new();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &bytes[..]).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    fn mode(file: PathBuf) -> u32 {
        file.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_device_and_the_gateway_trust_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let said =
            keygen(path, "--host gateway.local 10.0.0.1 [fe80::1] --device dev1 --device dev2 dev1").unwrap();
        for host in ["gateway.local", "10.0.0.1", "fe80::1"] {
            trust(path, host, "dev1").unwrap_or_else(|error| panic!("{host}: {error}"));
        }
        trust(path, "gateway.local", "dev2").unwrap();
        assert!(trust(path, "elsewhere", "dev1").is_err());
        assert!(trust(path, "gateway.local", "server").is_err(), "a gateway's certificate is no device's");
        for name in ["ca", "server", "dev1", "dev2"] {
            assert_eq!(mode(path.join(format!("{name}.key"))), 0o600);
            assert_eq!(mode(path.join(format!("{name}.pem"))), 0o644);
            assert!(said.contains(&format!("made {}/{name}.pem and its key\n", path.display())), "{said}");
        }
        assert_eq!(fs::read_dir(path).unwrap().count(), 8);
        assert!(
            said.contains(" -h gateway.local -p 8883 ") && said.contains(" -t localCode/dev1 "),
            "{said}"
        );
    }

    #[test]
    fn devices_are_added_under_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificates");
        keygen(&path, "").unwrap();
        let before = fs::read(path.join("ca.pem")).unwrap();
        let server = fs::read(path.join("server.key")).unwrap();
        let said = keygen(&path, "--device late").unwrap();
        assert!(said.starts_with("used ") && !said.contains("server.pem and its key"), "{said}");
        assert_eq!(fs::read(path.join("ca.pem")).unwrap(), before);
        assert_eq!(fs::read(path.join("server.key")).unwrap(), server);
        for host in ["localhost", "127.0.0.1", "::1"] {
            trust(&path, host, "late").unwrap();
        }
    }

    #[test]
    fn what_is_there_stays_and_what_is_missing_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        keygen(path, "--host a.example 10.0.0.1 --device dev1").unwrap();
        let read = |name: &str| fs::read(path.join(name)).unwrap();
        let keys = || ["ca.key", "server.key", "dev1.key"].map(read);
        let (before, certificate) = (keys(), read("server.pem"));
        let said = keygen(path, "--host 10.0.0.1 a.example --device dev3 dev1").unwrap();
        assert!(
            said.contains("kept ") && said.contains(" -h 10.0.0.1 ") && !said.contains("force"),
            "{said}"
        );
        assert_eq!(read("server.pem"), certificate);
        trust(path, "a.example", "dev3").unwrap();
        let said = keygen(path, "--host b.example a.example --device dev3").unwrap();
        assert!(
            said.contains(&format!("added b.example to {}/server.pem, whose key stays\n", path.display())),
            "{said}"
        );
        for host in ["a.example", "b.example", "10.0.0.1"] {
            trust(path, host, "dev1").unwrap_or_else(|error| panic!("{host}: {error}"));
        }
        assert_eq!(keys(), before);
        fs::remove_file(path.join("dev1.pem")).unwrap();
        keygen(path, "--device dev1").unwrap();
        trust(path, "a.example", "dev1").unwrap();
        assert_eq!(keys(), before);
    }

    #[test]
    fn a_gateway_is_told_of_the_authority_whether_or_not_there_are_devices() {
        let folder = tempfile::tempdir().unwrap();
        for flags in ["", "--device dev1"] {
            let said = keygen(folder.path(), flags).unwrap();
            let line = format!("  client_ca = \"{}/ca.pem\"\n", folder.path().display());
            assert!(said.contains(&line), "{said}");
        }
    }

    #[test]
    fn keys_are_replaced_by_force_alone_and_the_authoritys_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        keygen(path, "--device dev1").unwrap();
        let read = |name: &str| fs::read(path.join(name)).unwrap();
        let (ca, server, device) = (read("ca.key"), read("server.key"), read("dev1.key"));
        keygen(path, "--device dev1 --force").unwrap();
        assert_eq!((read("ca.key"), read("server.key")), (ca.clone(), server.clone()));
        assert_ne!(read("dev1.key"), device);
        keygen(path, "--host a.example --force").unwrap();
        assert_ne!(read("server.key"), server);
        assert_eq!(read("ca.key"), ca);
        trust(path, "a.example", "dev1").unwrap();
    }

    #[test]
    fn a_certificate_without_its_key_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        keygen(folder.path(), "--device dev1").unwrap();
        fs::remove_file(folder.path().join("dev1.key")).unwrap();
        let error = keygen(folder.path(), "--device anew dev1").unwrap_err().to_string();
        assert!(error.contains("dev1.pem is there without "), "{error}");
        assert!(!folder.path().join("anew.key").exists(), "all or nothing");
    }

    #[test]
    fn an_authority_that_cannot_sign_is_refused() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        keygen(folder.path(), "").unwrap();
        keygen(other.path(), "").unwrap();
        let ca = folder.path().join("ca.pem");
        fs::copy(other.path().join("ca.pem"), &ca).unwrap();
        let error = keygen(folder.path(), "--device dev1").unwrap_err().to_string();
        assert!(
            error.ends_with("ca.pem is not the certificate that keygen made for the key beside it"),
            "{error}"
        );
        fs::remove_file(&ca).unwrap();
        let error = keygen(folder.path(), "--device dev1").unwrap_err().to_string();
        assert!(error.ends_with("ca.pem"), "{error}");
        assert!(!folder.path().join("dev1.key").exists());
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for flags in [
            "--device ca",
            "--device server",
            "--device a/b",
            "--device ..",
            "--device a:b",
            "--host a/b",
            "--host [::1",
            "--days 0",
            "--days 36501",
        ] {
            assert!(keygen(folder.path(), flags).is_err(), "{flags}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
