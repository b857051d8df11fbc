//! TLS: the command against a real broker, with authorities of the test's own.

mod side;

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use side::{Gateway, Mosquitto, command, exited, output};
use tempfile::TempDir;

/// The one address that the broker's certificate is for.
const ADDRESS: &str = "127.0.0.1";

/// `ca.pem`, and under it `broker` and `device`, each with `.pem` and `.key`; `other.pem` is another authority.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            fs::write(files.path(&format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
            Issuer::new(params, key)
        };
        let (ca, _) = (authority("ca"), authority("other"));
        for (name, hosts) in [("broker", vec![ADDRESS.to_owned()]), ("device", Vec::new())] {
            let mut params = CertificateParams::new(hosts).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            fs::write(files.path(&format!("{name}.pem")), params.signed_by(&key, &ca).unwrap().pem())
                .unwrap();
            fs::write(files.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().unwrap()
    }

    /// The broker's lines.
    fn lines(&self) -> String {
        let [ca, certificate, key] = ["ca.pem", "broker.pem", "broker.key"].map(|name| self.text(name));
        format!("cafile {ca}\ncertfile {certificate}\nkeyfile {key}")
    }

    /// The line with the names of files replaced by their paths.
    fn args(&self, line: &str) -> Vec<String> {
        let is_file = |word: &&str| word.ends_with(".pem") || word.ends_with(".key");
        line.split(' ').map(|word| if is_file(&word) { self.text(word) } else { word.to_owned() }).collect()
    }
}

fn url(host: &str, port: Option<u16>) -> String {
    format!("mqtts://{host}:{}", port.unwrap())
}

#[tokio::test]
async fn requests_go_by_tls_in_either_version_with_a_certificate_of_ones_own() {
    let files = Files::new();
    let lines = files.lines() + "\nrequire_certificate true\nuse_identity_as_username true";
    let broker = Mosquitto::start_with_tls(&lines).await;
    let mut gateway = Gateway::start(&broker).await;
    let url = url(ADDRESS, broker.tls_port);
    let run = async |line: &str| {
        let args = files.args(&format!("--cafile ca.pem --cert device.pem --key device.key {line}"));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        output(command(&url, &args).spawn().unwrap()).await
    };
    for version in ["3.1.1", "5"] {
        let send = format!("-V {version} send add --args 5 7");
        let answer = async {
            let delivery = gateway.next().await;
            gateway.answer(&delivery, exited(0, "12\n", "")).await;
        };
        let ((), said) = tokio::join!(answer, run(&send));
        assert_eq!(said, (0, "12\n".into(), String::new()), "{version}");
        let (code, _, stderr) = run(&format!("-V {version} gateways --wait 1ms")).await;
        assert!(
            code == 1 && stderr.starts_with("error: not-found: no gateway has said anything"),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn whom_the_system_trusts_is_trusted_by_default() {
    let files = Files::new();
    let broker = Mosquitto::start_with_tls(&files.lines()).await;
    let mut gateway = Gateway::start(&broker).await;
    let url = url(ADDRESS, broker.tls_port);
    let send = |system: &str| {
        let mut send = command(&url, &["send", "add"]);
        send.env("SSL_CERT_FILE", files.path(system)).env_remove("SSL_CERT_DIR");
        output(send.spawn().unwrap())
    };
    let answer = async {
        let delivery = gateway.next().await;
        gateway.answer(&delivery, exited(0, "12\n", "")).await;
    };
    let ((), said) = tokio::join!(answer, send("ca.pem"));
    assert_eq!(said, (0, "12\n".into(), String::new()));
    let (code, _, stderr) = send("other.pem").await;
    assert!(code == 125 && stderr.contains("nobody who is trusted here vouches"), "{stderr}");
    let (code, _, stderr) = send("device.key").await;
    assert!(code == 125 && stderr.contains("this system trusts no certificate authorities"), "{stderr}");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let files = Files::new();
    let broker = Mosquitto::start_with_tls(&(files.lines() + "\nrequire_certificate true")).await;
    let (tls, plain) = (broker.tls_port, Some(broker.port));
    for (host, port, flags, error) in [
        (
            ADDRESS,
            tls,
            "--cafile other.pem",
            "connection: cannot connect to 127.0.0.1:PORT: nobody who is trusted",
        ),
        (
            "localhost",
            tls,
            "--cafile ca.pem",
            "the broker's certificate is refused: certificate not valid for name",
        ),
        (ADDRESS, tls, "--cafile ca.pem", "connection: cannot connect to 127.0.0.1:PORT: "),
        (ADDRESS, plain, "--cafile ca.pem", "MQTT without TLS answers on this port: try mqtt://"),
        (ADDRESS, tls, "--cafile none.pem", "malformed: cannot read "),
        (ADDRESS, tls, "--cafile device.key", "device.key holds no certificate in PEM"),
        (
            ADDRESS,
            tls,
            "--cafile ca.pem --cert device.pem --key broker.key",
            "broker.key is not the key of the certificate",
        ),
    ] {
        let error = error.replace("PORT", &port.unwrap().to_string());
        for command_line in ["send add", "-V 3.1.1 send add", "gateways", "-V 3.1.1 gateways"] {
            let args = files.args(&format!("{flags} {command_line}"));
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let child = command(&url(host, port), &args).spawn().unwrap();
            let (code, _, stderr) = output(child).await;
            let error = if command_line.contains("gateways") {
                error.replace("cannot connect to", "cannot ask")
            } else {
                error.clone()
            };
            assert!(code == 125 && stderr.contains(&error), "{flags} {command_line}: {stderr}");
        }
    }
}

#[tokio::test]
async fn whoever_speaks_no_tls_where_it_is_wanted_is_told() {
    let files = Files::new();
    let broker = Mosquitto::start_with_tls(&files.lines()).await;
    let url = format!("mqtt://{ADDRESS}:{}", broker.tls_port.unwrap());
    for version in ["5", "3.1.1"] {
        for rest in [&["send", "add"][..], &["bench", "add"], &["gateways"]] {
            let args = [&["-V", version], rest].concat();
            let (code, _, stderr) = output(command(&url, &args).spawn().unwrap()).await;
            assert!(
                code == 125 && stderr.contains("TLS answers on this port: try mqtts://"),
                "{args:?}: {stderr}"
            );
        }
    }
}
