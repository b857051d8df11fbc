//! A client, as the gateway knows it: what rules, quotas and logs name.

use crate::flow::Flow;
use std::sync::Arc;

/// Who asks: one client, as far as the ingress can tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The authenticated identity, or the reply id where an external broker hides it; `None` for an anonymous client.
    pub principal: Option<Arc<str>>,
    /// What service is fair between where there is no principal: one client id of the embedded broker.
    pub flow: Arc<str>,
    /// Whom all that it makes the gateway hold and do is counted for: the principal, else the address that it comes
    /// from; where an external broker hides that, the reply id.
    pub account: Arc<str>,
    /// Whether it came over WebSocket, as any web page can.
    pub web: bool,
}

impl Client {
    /// What its requests are counted by: its flow, and its account.
    pub fn flow_key(&self) -> Flow {
        Flow::new(self.account.clone(), self.key().clone())
    }

    /// What it is called, and what service is fair between within an account.
    pub fn key(&self) -> &Arc<str> {
        self.principal.as_ref().unwrap_or(&self.flow)
    }
}
