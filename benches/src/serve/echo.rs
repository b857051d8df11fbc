//! What the gateway would do if running code cost nothing: the same ingress, and a handler that answers at once.

use super::{announce, on_any_port, told_to_stop};
use anyhow::Result;
use offload_protocol::answer::{Answer, AnswerForm, Outcome};
use offload_protocol::topic;
use offload_rt::auth::Auth;
use offload_rt::ingress::embedded::EmbeddedIngress;
use offload_rt::ingress::{Delivery, Notice, Notices, Outgoing, Sink};
use std::sync::Arc;

pub async fn serve() -> Result<()> {
    let status = |state: &'static str| Notice {
        topic: topic::gateway_status("echo").into(),
        payload: state.into(),
        retain: true,
    };
    let notices = Notices::fixed(status("online"), status("offline"));
    let config = on_any_port(offload_rt::config::Config::default());
    let (auth, _reload) = Auth::new(&config)?;
    let ingress = EmbeddedIngress::start(&config, auth, Arc::new(Echo), notices).await?;
    announce(ingress.address())?;
    told_to_stop().await?;
    ingress.shutdown().await;
    Ok(())
}

struct Echo;

impl Sink for Echo {
    fn delivered(&self) {}

    fn deliver(&self, mut delivery: Delivery) {
        delivery.responder.accepted();
        let Some(request) = topic::parse_request(&delivery.topic) else { return delivery.responder.ignore() };
        let answer = Answer {
            id: None,
            outcome: Outcome::Exited(0),
            stdout: delivery.payload,
            stderr: Default::default(),
            fuel: 0,
            run_us: 0,
            queue_us: 0,
        };
        delivery.responder.answer(Outgoing {
            topic: topic::result(request.reply_id),
            answer,
            form: AnswerForm::Line,
            correlation_data: delivery.properties.correlation_data,
            max_payload: None,
        });
    }
}
