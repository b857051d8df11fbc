//! Who asks, as far as an ingress can tell.

use crate::flow::Flow;
use std::sync::Arc;

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The authenticated identity, or the reply id where an external broker hides it; `None` for an anonymous client.
    pub principal: Option<Arc<str>>,
    /// What service is fair between where there is no principal: one client id of the embedded broker.
    pub flow: Arc<str>,
    /// Who pays for what it makes the gateway hold and do: the principal, else the address that it comes from; where an
    /// external broker hides that, the reply id.
    pub account: Arc<str>,
    /// Whether it came over WebSocket, as any web page can.
    pub web: bool,
}

impl Client {
    /// What its requests are counted by: its flow, and the account that pays.
    pub fn flow_key(&self) -> Flow {
        Flow::new(self.account.clone(), self.key().clone())
    }

    /// What it is called, and what service is fair between within an account.
    pub fn key(&self) -> &Arc<str> {
        self.principal.as_ref().unwrap_or(&self.flow)
    }
}
