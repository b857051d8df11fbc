//! What the gateway would do if running code cost nothing: the same ingress, and a handler that answers at once.

use super::{announce, on_any_port, told_to_stop};
use anyhow::{Context, Result};
use offload_protocol::answer::{Answer, AnswerForm, Outcome};
use offload_protocol::topic;
use offload_rt::auth::Auth;
use offload_rt::ingress::embedded::{EmbeddedIngress, Settings};
use offload_rt::ingress::{Delivery, Ingress, Intake, Notice, Notices, Outgoing, ReplyAddress, Sink};
use std::sync::Arc;

pub async fn serve() -> Result<()> {
    let status = |state: &'static str| Notice {
        topic: topic::gateway_status("echo").into(),
        payload: state.into(),
        retain: true,
    };
    let notices = Notices::fixed(status("online"), status("offline"));
    let config = on_any_port(offload_rt::config::Config::default());
    let (auth, _reload) = Auth::new(&config, Arc::default())?;
    let settings = Settings { config: &config, auth, systemd: Default::default(), storage: None, tap: None };
    let ingress = EmbeddedIngress::start(settings, Intake::new(Arc::new(Echo)), notices).await?;
    announce(ingress.address().context("the embedded broker has an address")?)?;
    told_to_stop().await?;
    ingress.shutdown().await;
    Ok(())
}

struct Echo;

impl Sink for Echo {
    fn deliver(&self, delivery: Delivery) {
        let Some(request) = topic::parse_request(&delivery.topic) else { return delivery.ignore() };
        let topic = topic::result(request.reply_id);
        let Delivery { payload, properties, acceptance, responder, .. } = delivery;
        acceptance.complete();
        let answer = Answer {
            id: None,
            outcome: Outcome::Exited(0),
            stdout: payload,
            content_range: None,
            stderr: Default::default(),
            fuel: 0,
            run_us: 0,
            queue_us: 0,
        };
        let correlation_data = properties.correlation_data;
        let address = ReplyAddress { topic, correlation_data, max_payload: None };
        responder.answer(Outgoing { address, form: AnswerForm::Line, answer, seal: None }, None);
    }

    fn dispatch(&self) {}
}
