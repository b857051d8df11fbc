//! The embedded broker as an ingress: when requests are acknowledged, and where answers go when nobody is there who
//! asked.

#[path = "embedded/client.rs"]
mod client;

use std::sync::Arc;

use client::{Client, PATIENCE};
use offload_protocol::answer::{Answer, AnswerForm, Outcome};
use offload_rt::auth::Auth;
use offload_rt::config::{Config, HostPort};
use offload_rt::ingress::embedded::{EmbeddedIngress, Settings};
use offload_rt::ingress::{
    Delivery, Detached, Ingress, Intake, Notice, Notices, Outgoing, ReplyAddress, Responder, Sink,
};
use rumqttc::Packet;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

/// Hands deliveries to the test.
struct Forward(UnboundedSender<Delivery>);

impl Sink for Forward {
    fn deliver(&self, delivery: Delivery) {
        let _ = self.0.send(delivery);
    }

    fn dispatch(&self) {}
}

/// A broker of its own for a test, and what comes to it.
struct Broker {
    ingress: Arc<dyn Ingress>,
    deliveries: UnboundedReceiver<Delivery>,
}

impl Broker {
    async fn start() -> Broker {
        let mut config = Config::default();
        config.listen.address = HostPort::new("127.0.0.1", 0);
        let (auth, _reload) = Auth::new(&config, Arc::default()).unwrap();
        let (sender, deliveries) = unbounded_channel();
        let notice = |state: &'static str| Notice {
            topic: "gateway/test/status".into(),
            payload: state.into(),
            retain: true,
        };
        let notices = Notices::fixed(notice("online"), notice("offline"));
        let intake = Intake::new(Arc::new(Forward(sender)));
        let settings =
            Settings { config: &config, auth, systemd: Default::default(), storage: None, tap: None };
        let ingress = EmbeddedIngress::start(settings, intake, notices).await.unwrap();
        Broker { ingress: Arc::new(ingress), deliveries }
    }

    async fn client(&self, id: &str) -> Client {
        Client::connect(self.ingress.address().unwrap(), id).await
    }

    async fn delivery(&mut self) -> Delivery {
        timeout(PATIENCE, self.deliveries.recv()).await.expect("delivered in time").expect("sink alive")
    }

    /// What `client` publishes on `topic`, as it is delivered.
    async fn deliver(&mut self, client: &mut Client, topic: &str) -> Delivery {
        client.publish(topic, "1 2").await;
        let delivery = self.delivery();
        tokio::pin!(delivery);
        let mut delivered = None;
        client.send_until(async { delivered = Some(delivery.as_mut().await) }).await;
        delivered.expect("sent until it was delivered")
    }
}

fn answer(topic: &str, text: &'static str) -> Outgoing {
    let answer = Answer {
        id: None,
        outcome: Outcome::Exited(0),
        stdout: text.into(),
        content_range: None,
        stderr: Default::default(),
        fuel: 0,
        run_us: 0,
        queue_us: 0,
    };
    let address = ReplyAddress { topic: topic.to_owned(), correlation_data: None, max_payload: None };
    Outgoing { address, form: AnswerForm::Line, answer, seal: None }
}

#[tokio::test]
async fn an_acceptance_that_is_held_back_delays_the_acknowledgement_and_not_the_answer() {
    let mut broker = Broker::start().await;
    let mut client = broker.client("d").await;
    client.subscribe("result/d").await;
    let Delivery { acceptance, responder, .. } = broker.deliver(&mut client, "localCode/d").await;
    // What the client asks for afterwards is confirmed: an acknowledgement would have come before.
    client.subscribe("elsewhere").await;
    responder.answer(answer("result/d", "early"), None);
    let packet = client.packet().await;
    assert!(matches!(&packet, Packet::Publish(publish) if publish.payload == "early"), "{packet:?}");
    acceptance.complete();
    let packet = client.packet().await;
    assert!(matches!(packet, Packet::PubAck(_)), "{packet:?}");
    broker.ingress.shutdown().await;
}

#[tokio::test]
async fn an_answer_is_published_when_the_connection_that_asked_is_gone() {
    let mut broker = Broker::start().await;
    let mut other = broker.client("other").await;
    other.subscribe("result/d").await;
    let mut asker = broker.client("d").await;
    let Delivery { client, acceptance, responder, .. } = broker.deliver(&mut asker, "localCode/d").await;
    acceptance.complete();
    drop(asker);
    // By the way back that came with the request, as a value, and by what stands in for a way back.
    responder.answer(answer("result/d", "one"), None);
    broker.ingress.publish_answer(&client, answer("result/d", "two"), None);
    let detached = Detached { ingress: broker.ingress.clone(), asker: client };
    let stand_in: Box<dyn Responder> = Box::new(detached);
    stand_in.answer(answer("result/d", "three"), None);
    assert_eq!(other.messages(0, 3).await, ["one", "two", "three"]);
    broker.ingress.shutdown().await;
}

#[tokio::test]
async fn an_answer_for_one_connection_alone_goes_to_nobody_else() {
    let mut broker = Broker::start().await;
    let mut other = broker.client("other").await;
    other.subscribe("result/").await;
    let mut asker = broker.client("d").await;
    asker.subscribe("result/").await;
    let Delivery { client, acceptance, responder, .. } = broker.deliver(&mut asker, "localCode/").await;
    acceptance.complete();
    broker.ingress.publish_answer(&client, answer("result/", "as a value"), None);
    let nobody = offload_rt::client::Client { flow: "nobody".into(), ..client };
    broker.ingress.publish_answer(&nobody, answer("result/", "for nobody"), None);
    responder.answer(answer("result/", "by the way back"), None);
    broker.ingress.publish_notice(Notice { topic: "result/".into(), payload: "last".into(), retain: false });
    assert_eq!(asker.messages(1, 3).await, ["as a value", "by the way back", "last"]);
    assert_eq!(other.messages(0, 1).await, ["last"]);
    broker.ingress.shutdown().await;
}

#[tokio::test]
async fn messages_are_counted_both_ways() {
    let mut broker = Broker::start().await;
    let mut client = broker.client("d").await;
    client.subscribe("result/d").await;
    let Delivery { acceptance, responder, .. } = broker.deliver(&mut client, "localCode/d").await;
    acceptance.complete();
    responder.answer(answer("result/d", "3"), None);
    assert_eq!(client.messages(1, 1).await, ["3"]);
    broker.ingress.shutdown().await;
    let statistics = broker.ingress.statistics();
    // The watchdog's messages count too.
    assert!(statistics.messages_in >= 1 && statistics.messages_out >= 1, "{statistics:?}");
    assert_eq!((statistics.connections, statistics.dropped), (0, 0), "{statistics:?}");
}
