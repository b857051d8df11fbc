//! A broker with TLS and passwords:
//! `cargo run --release -p offload-broker --example secure_broker server.pem server.key [ca.pem]`.
//!
//! The user `demo` has the password `offload`; with a CA, whoever shows a certificate of it needs none. Users publish
//! and subscribe below their own name. Try it with
//! `mosquitto_sub -p 8883 --cafile server-ca.pem -u demo -P offload -t 'demo/#'`.

use std::{error::Error, fs, sync::Arc};

use offload_broker::{
    Application, BoxFuture, Broker, Certificates, ClientCertificates, ClientInfo, Config, Identity, Login,
    Reason, Refusal, Route, Tls, Transport,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Users;

impl Application for Users {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        Box::pin(async move {
            if let Some(name) = login.certificate {
                return Ok(Identity { user: Some(name.into()), ..Identity::default() });
            }
            // A real application keeps hashes, and computes them with `tokio::task::spawn_blocking`.
            match (login.user_name.as_deref(), login.password.as_deref()) {
                (Some("demo"), Some(b"offload")) => {
                    Ok(Identity { user: Some("demo".into()), ..Identity::default() })
                }
                _ => Err(Reason::BadUserNameOrPassword.into()),
            }
        })
    }

    fn may_subscribe(&self, client: &ClientInfo, filter: &str) -> bool {
        own(client, filter)
    }

    fn route(&self, client: &ClientInfo, topic: &str) -> Route {
        if own(client, topic) { Route::Broker } else { Route::Refuse }
    }
}

/// Whether the first level is the client's user, which wildcards do not stand for.
fn own(client: &ClientInfo, topic: &str) -> bool {
    let user = client.user.as_deref().filter(|user| !user.contains(['+', '#', '/']));
    user.is_some() && user == topic.split('/').next()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let files: Vec<_> = std::env::args().skip(1).map(fs::read).collect::<Result<_, _>>()?;
    let [chain, key, rest @ ..] = &files[..] else {
        return Err("usage: secure_broker CERTIFICATE KEY [CA]".into());
    };
    let clients = rest.first().map_or(ClientCertificates::NotAsked, |ca| ClientCertificates::Optional { ca });
    let tls = Tls::new(&Certificates { chain, key, clients })?;

    let listener = TcpListener::bind("0.0.0.0:8883").await?;
    let shutdown = CancellationToken::new();
    let broker = Broker::new(Config::default(), Arc::new(Users));
    let serving = broker.serve(listener, Transport::Tls(tls), shutdown.clone());
    let stop = async {
        tokio::signal::ctrl_c().await?;
        shutdown.cancel();
        Ok::<_, std::io::Error>(())
    };
    let (served, stopped) = tokio::join!(serving, stop);
    stopped?;
    Ok(served?)
}
