//! Who may connect, under which client id, and what they may subscribe to.

use std::{sync::Arc, time::Duration};

use offload_broker::{
    Application, BoxFuture, ClientInfo, Config, Identity, Login, Reason, Refusal, Route, TransportKind,
    Version::{self, V5, V311},
};
use tokio::{
    sync::{
        Semaphore,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::timeout,
};

use crate::{
    client::{BOTH, Client, Connect, Will},
    log::Log,
    server::{DEADLINE, Server},
};

/// The password of every user, which is not UTF-8.
const PASSWORD: &[u8] = b"s\xFFcret";

/// Lets users in who know the password, and those without a name; `slow` waits for a permit. A user may publish and
/// subscribe below `of/<user>`, everyone below `open`.
struct Doorkeeper {
    logins: UnboundedSender<Login>,
    permits: Arc<Semaphore>,
}

impl Application for Doorkeeper {
    fn authenticate(&self, login: Login) -> BoxFuture<'_, Result<Identity, Refusal>> {
        Box::pin(async move {
            if login.user_name.as_deref() == Some("slow") {
                self.permits.acquire().await.unwrap().forget();
            }
            let outcome = match (login.user_name.as_deref(), login.password.as_deref()) {
                (None, None) => Ok(Identity::default()),
                (Some("banned"), _) => Err(Reason::NotAuthorized),
                (Some("confused"), _) => Err(Reason::Success),
                (Some(_), _) if login.client_id == "reserved" => Err(Reason::ClientIdentifierNotValid),
                (Some(user), Some(PASSWORD)) => {
                    Ok(Identity { user: Some(user.into()), ..Identity::default() })
                }
                _ => Err(Reason::BadUserNameOrPassword),
            };
            let _ = self.logins.send(login); // not every test listens
            outcome.map_err(Refusal::from)
        })
    }

    /// `removed` is let in too early.
    fn confirm(&self, client: &ClientInfo) -> Result<(), Refusal> {
        let removed = client.user.as_deref() == Some("removed");
        if removed { Err(Reason::BadUserNameOrPassword.into()) } else { Ok(()) }
    }

    fn may_subscribe(&self, client: &ClientInfo, filter: &str) -> bool {
        self.may(client, filter)
    }

    fn route(&self, client: &ClientInfo, topic: &str) -> Route {
        if self.may(client, topic) { Route::Broker } else { Route::Refuse }
    }
}

impl Doorkeeper {
    fn may(&self, client: &ClientInfo, topic: &str) -> bool {
        let own = client.user.as_deref().map(|user| format!("of/{user}"));
        topic.starts_with("open") || own.is_some_and(|own| topic == own)
    }
}

struct Guarded {
    server: Server,
    logins: UnboundedReceiver<Login>,
    permits: Arc<Semaphore>,
}

async fn guarded(config: Config) -> Guarded {
    let (sender, logins) = unbounded_channel();
    let permits = Arc::new(Semaphore::new(0));
    let doorkeeper = Doorkeeper { logins: sender, permits: permits.clone() };
    Guarded { server: Server::with(config, Arc::new(doorkeeper)).await, logins, permits }
}

fn user(version: Version, id: &str, user: &str) -> Connect {
    Connect::new(version, id).user(user).password(PASSWORD)
}

async fn assert_refused(server: &Server, connect: &Connect, v5: u8, v311: u8) {
    let mut refused = Client::try_connect(server, connect).await;
    assert_eq!(refused.connack[1], if connect.version == V5 { v5 } else { v311 });
    refused.expect_end().await;
}

#[tokio::test]
async fn the_application_sees_who_asks_and_decides() {
    let Guarded { server, mut logins, .. } = guarded(Config::default()).await;
    for version in BOTH {
        let mut client = Client::connect(&server, &user(version, "c", "anna")).await;
        client.ping().await;
        let login = logins.recv().await.unwrap();
        assert_eq!((&login.client_id[..], login.version), ("c", version));
        assert_eq!((login.user_name.as_deref(), login.password.as_deref()), (Some("anna"), Some(PASSWORD)));
        assert_eq!((login.transport, login.peer.ip()), (TransportKind::Tcp, server.address.ip()));
        assert_eq!((login.certificate, login.origin), (None, None));
    }
    let anonymous = Client::new(&server, V5, "").await;
    assert_eq!(anonymous.connack[1], 0);
    let login = logins.recv().await.unwrap();
    assert_eq!((login.client_id.as_str(), login.user_name, login.password), ("", None, None));
}

#[tokio::test]
async fn refusals_carry_the_right_code() {
    let Guarded { server, .. } = guarded(Config::default()).await;
    for version in BOTH {
        let with = |name: &str| Connect::new(version, "c").user(name);
        assert_refused(&server, &with("anna"), 0x86, 4).await;
        assert_refused(&server, &with("anna").password("wrong"), 0x86, 4).await;
        assert_refused(&server, &with("").password(""), 0x86, 4).await;
        assert_refused(&server, &with("banned").password(PASSWORD), 0x87, 5).await;
        assert_refused(&server, &user(version, "reserved", "anna"), 0x85, 2).await;
        // A refusal is one whatever reason is given.
        assert_refused(&server, &with("confused"), 0x87, 5).await;
    }
    let stats = server.broker.stats();
    assert_eq!((stats.sessions, stats.connections_refused), (0, 12));
}

#[tokio::test]
async fn nothing_of_a_will_is_decoded_before_its_client_is_known() {
    let Guarded { server, mut logins, .. } = guarded(Config::default()).await;
    let mut will = Will::new("open");
    will.properties = [38, 0, 0, 0, 0].repeat(48_000);
    // The will is not looked at: otherwise its properties would be too many.
    let stranger = Connect::new(V5, "c").user("anna").password("wrong").will(will.clone());
    assert_refused(&server, &stranger, 0x86, 4).await;
    assert_refused(&server, &user(V5, "c", "anna").will(will.clone()), 0x97, 3).await;
    will.properties.truncate(5 * 64);
    Client::connect(&server, &user(V5, "c", "anna").will(will)).await;
    // What stands before the client id is decoded, and ends where there is too much of it: nobody is asked.
    let mut connect = user(V5, "c", "anna");
    connect.properties = [38, 0, 0, 0, 0].repeat(48_000);
    assert_refused(&server, &connect, 0x97, 3).await;
    drop(server);
    let mut asked = 0;
    while logins.try_recv().is_ok() {
        asked += 1;
    }
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn no_flood_hides_failed_log_ins_from_the_log() {
    let log = Log::start();
    let Guarded { server, .. } = guarded(Config::default()).await;
    let mut client = Client::connect(&server, &user(V5, "c", "anna")).await;
    for id in 1..=100 {
        client.publish("not/allowed", "x", 1, id).await;
        assert_eq!(client.acknowledged(0x40, id).await, 0x87);
        let mut broken = Client::new(&server, V5, "broken").await;
        broken.send(&[0]).await;
        broken.expect_disconnect(0x81).await;
    }
    assert_refused(&server, &Connect::new(V5, "c").user("bert").password("guess"), 0x86, 4).await;
    let log = log.text();
    let refused = log.lines().find(|line| line.contains("connection refused")).unwrap();
    assert!(refused.contains("bert") && !refused.contains("left_out"), "{refused}");
    assert!(log.lines().filter(|line| line.contains("publish refused")).count() < 100);
}

#[tokio::test]
async fn a_slow_decision_delays_nobody_else_and_is_not_waited_for_for_ever() {
    let Guarded { server, permits, .. } = guarded(Config::default()).await;
    let mut slow = Vec::new();
    for number in 0..100 {
        let mut client = Client::open(&server, V5).await;
        client.send(&user(V5, &format!("slow-{number}"), "slow").bytes()).await;
        slow.push(client);
    }
    for version in BOTH {
        Client::connect(&server, &user(version, "quick", "anna")).await.ping().await;
    }
    permits.add_permits(100);
    for client in &mut slow {
        assert_eq!(client.receive().await.body[1], 0);
    }

    let config = Config { connect_timeout: Duration::from_millis(50), ..Config::default() };
    let Guarded { server, .. } = guarded(config).await;
    let mut never = Client::open(&server, V5).await;
    never.send(&user(V5, "never", "slow").bytes()).await;
    never.expect_end().await;
    server.until("its permit is given back", |stats| stats.connections == 0 && stats.sessions == 0).await;
}

#[tokio::test]
async fn a_client_id_belongs_to_the_identity_that_uses_it() {
    let Guarded { server, .. } = guarded(Config::default()).await;
    for version in BOTH {
        let anna = user(version, "c", "anna");
        let (bert, anonymous) = (user(version, "c", "bert"), Connect::new(version, "c"));
        let mut connected = Client::connect(&server, &anna).await;
        for other in [&bert, &anonymous] {
            assert_refused(&server, other, 0x87, 5).await;
        }
        // Anna is still there, and may take it over herself.
        connected.ping().await;
        let again = Client::connect(&server, &anna).await;
        connected.expect_disconnect(0x8E).await;
        again.disconnect().await;
        // Her session is over, and the name is free.
        Client::connect(&server, &bert).await.disconnect().await;

        // A session keeps its name while nobody is connected.
        let stays = Connect::persistent(version, "c").user("anna").password(PASSWORD);
        Client::connect(&server, &stays).await.disconnect().await;
        for other in [&bert, &anonymous] {
            assert_refused(&server, other, 0x87, 5).await;
        }
        assert!(Client::connect(&server, &stays).await.session_present());
        Client::connect(&server, &anna).await.disconnect().await;
    }
}

#[tokio::test]
async fn what_a_client_without_a_name_left_gives_way_to_a_user_and_is_not_handed_on() {
    let Guarded { server, .. } = guarded(Config::default()).await;
    for version in BOTH {
        let (stays, anna) = (Connect::persistent(version, "c"), user(version, "c", "anna"));
        // Away, and connected.
        for connected in [false, true] {
            let mut unnamed = Client::connect(&server, &stays).await;
            unnamed.subscribe("open/x", 1).await;
            assert!(
                Client::new(&server, V5, "p").await.publish_acknowledged("open/x", "for it alone").await
                    < 0x80
            );
            assert_eq!(unnamed.message().await.text(), "for it alone");
            if !connected {
                drop(unnamed);
                server.until("it is away", |stats| stats.clients == 0).await;
                let mut named = Client::connect(&server, &anna).await;
                assert!(!named.session_present());
                named.ping().await;
                named.disconnect().await;
                continue;
            }
            let mut named = Client::connect(&server, &anna).await;
            assert!(!named.session_present());
            unnamed.expect_disconnect(0x8E).await;
            assert_refused(&server, &stays, 0x87, 5).await;
            named.ping().await;
            assert_eq!(server.broker.stats().subscriptions, 0);
            named.disconnect().await;
        }
    }
}

#[tokio::test]
async fn each_refusal_is_logged_with_its_cause() {
    let config = Config {
        max_client_id_length: 10,
        max_connections_per_user: 1,
        max_sessions_away_per_identity: 1,
        max_topic_length: 20,
        ..Config::default()
    };
    let Guarded { server, .. } = guarded(config).await;
    let anna = |id: &str| user(V5, id, "anna");
    let _holder = Client::connect(&server, &anna("held")).await;
    Client::connect(&server, &Connect::persistent(V5, "away")).await.disconnect().await;
    let with_will = |topic: &str| Connect::new(V5, "c").will(Will::new(topic));
    let cases = [
        (user(V5, "held", "bert"), "the client id names a session of another user", None),
        (anna("second"), "max_connections_per_user", None),
        (Connect::persistent(V5, "stays"), "max_sessions_away_per_identity", None),
        (Connect::new(V5, "longer than ten"), "max_client_id_length", None),
        (Connect::persistent(V311, ""), "needs a client id", None),
        (with_will("of/anna"), "the will's topic is not permitted", Some("of/anna")),
        (with_will("$SYS/x"), "the will's topic is not permitted", Some("$SYS/x")),
        (with_will("a/#"), "the will's topic is none", Some("a/#")),
        (with_will("open/and-longer-than-20"), "max_topic_length", Some("open/and")),
        (Connect::new(V5, "c").property(21, &[0, 1, b'x']), "authentication methods", None),
        (Connect::new(V5, "c").property(22, &[0, 1, b'x']), "authentication data without a method", None),
        (Connect::new(V5, "c").user("banned"), "the application refuses it", None),
    ];
    for (connect, cause, will) in cases {
        let log = Log::start();
        let refused = Client::try_connect(&server, &connect).await;
        assert!(refused.connack[1] > 0, "{cause}");
        let text = log.text();
        let line =
            text.lines().find(|line| line.contains("connection refused")).unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(cause) && will.is_none_or(|will| line.contains(will)), "{cause}: {line}");
    }
}

#[tokio::test]
async fn what_the_application_does_not_confirm_gets_no_session_and_takes_nobodys() {
    let Guarded { server, .. } = guarded(Config::default()).await;
    for version in BOTH {
        let mut anna = Client::connect(&server, &user(version, "anna", "anna")).await;
        assert_refused(&server, &user(version, "new", "removed"), 0x86, 4).await;
        assert_refused(&server, &user(version, "anna", "removed"), 0x86, 4).await;
        anna.ping().await;
        assert_eq!(server.broker.stats().sessions, 1);
        anna.disconnect().await;
    }
}

#[tokio::test]
async fn a_client_id_that_is_a_users_own_name_is_its_own_whoever_came_first() {
    let Guarded { server, .. } = guarded(Config::default()).await;
    for version in BOTH {
        let keeps = |name: &str| Connect::persistent(version, "anna").user(name).password(PASSWORD);
        let mut bert = Client::connect(&server, &keeps("bert")).await;
        bert.subscribe("open/x", 0).await;
        for other in [user(version, "anna", "carl"), Connect::new(version, "anna")] {
            assert_refused(&server, &other, 0x87, 5).await;
        }
        let anna = Client::connect(&server, &keeps("anna")).await;
        bert.expect_disconnect(0x8E).await;
        assert!(!anna.session_present(), "what was another's is not resumed");
        assert_eq!((server.broker.stats().sessions, server.broker.stats().subscriptions), (1, 0));
        assert_refused(&server, &keeps("bert"), 0x87, 5).await;
        // Not kept for the next version.
        Client::connect(&server, &user(version, "anna", "anna")).await.disconnect().await;
    }
}

#[tokio::test]
async fn by_default_the_user_name_is_taken_at_its_word() {
    let server = Server::start().await;
    for version in BOTH {
        let mut anna = Client::connect(&server, &user(version, "c", "anna")).await;
        assert_refused(&server, &user(version, "c", "bert"), 0x87, 5).await;
        anna.ping().await;
        anna.disconnect().await;
        // An empty user name is none.
        let mut unnamed = Client::connect(&server, &user(version, "c", "")).await;
        Client::new(&server, version, "c").await.ping().await;
        unnamed.expect_disconnect(0x8E).await;
    }
}

#[tokio::test]
async fn refused_filters_are_refused_one_by_one() {
    let Guarded { server, .. } = guarded(Config::default()).await;
    for (version, refused) in [(V5, 0x87), (V311, 0x80)] {
        let mut client = Client::connect(&server, &user(version, "c", "anna")).await;
        let filters = [("open/#", 1), ("of/bert", 1), ("of/anna", 2), ("#", 0), ("of/+", 0)];
        let codes = client.subscribe_all(&filters, &[]).await;
        assert_eq!(codes, [1, refused, 2, refused, refused]);
        assert_eq!(server.broker.stats().subscriptions, 2);
        client.disconnect().await;
    }
}

#[tokio::test]
async fn a_will_is_checked_at_connect_for_the_user_it_comes_from() {
    let Guarded { server, .. } = guarded(Config::default()).await;
    let mut watcher = Client::connect(&server, &user(V5, "watcher", "anna")).await;
    watcher.subscribe("of/anna", 0).await;
    for version in BOTH {
        let with = |name: &str| user(version, "c", name).will(Will::new("of/anna"));
        assert_refused(&server, &with("bert"), 0x87, 5).await;
        drop(Client::connect(&server, &with("anna")).await);
        assert_eq!(watcher.take().await.topic, "of/anna");
    }
}

#[tokio::test]
async fn rumqttc_logs_in_and_is_told_when_it_may_not() {
    use rumqttc::{AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet, v5};
    let Guarded { server, .. } = guarded(Config::default()).await;
    let port = server.address.port();
    // This library has passwords that are UTF-8 only: the wrong ones.
    let mut options = MqttOptions::new("a", "127.0.0.1", port);
    options.set_credentials("anna", "wrong");
    let (_client, mut events) = AsyncClient::new(options, 1);
    let refused = timeout(DEADLINE, events.poll()).await.unwrap().unwrap_err();
    let expected = ConnectReturnCode::BadUserNamePassword;
    assert!(matches!(refused, ConnectionError::ConnectionRefused(code) if code == expected), "{refused:?}");

    let mut options = v5::MqttOptions::new("b", "127.0.0.1", port);
    options.set_credentials("banned", "any");
    let (_client, mut events) = v5::AsyncClient::new(options, 1);
    let refused = timeout(DEADLINE, events.poll()).await.unwrap().unwrap_err();
    let expected = v5::mqttbytes::v5::ConnectReturnCode::NotAuthorized;
    assert!(
        matches!(&refused, v5::ConnectionError::ConnectionRefused(code) if *code == expected),
        "{refused:?}"
    );

    let (_client, mut events) = AsyncClient::new(MqttOptions::new("c", "127.0.0.1", port), 1);
    let accepted = timeout(DEADLINE, events.poll()).await.unwrap().unwrap();
    assert!(matches!(accepted, Event::Incoming(Packet::ConnAck(_))));
}

#[tokio::test]
async fn passwords_and_payloads_are_never_logged() {
    let log = Log::start();
    let Guarded { server, mut logins, .. } = guarded(Config::default()).await;
    for version in BOTH {
        let secret = |name: &str| Connect::new(version, "somebody").user(name).password("hunter2");
        assert_refused(&server, &secret("anna"), 0x86, 4).await;
        tracing::info!(login = ?logins.recv().await.unwrap(), "what an application may log");
        let mut client = Client::connect(&server, &user(version, "c", "anna")).await;
        let login = logins.recv().await.unwrap();
        tracing::info!(?login, "what an application may log");
        client.publish_acknowledged("of/bert", "plans").await;
        client.subscribe_all(&[("of/bert", 0)], &[]).await;
        client.disconnect().await;
    }
    server.stop().await;
    let log = log.text();
    for said in ["connection refused", "BadUserNameOrPassword", "somebody", "publish refused", "anna"] {
        assert!(log.contains(said), "{said} is missing in {log}");
    }
    let spelled = |bytes: &[u8]| format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
    for secret in ["hunter2", &spelled(b"hunter2"), &spelled(PASSWORD), "cret", "plans"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
