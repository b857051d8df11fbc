//! A client, as the gateway knows it: what rules, quotas and logs name.

use crate::flow::Flow;
use std::sync::Arc;

/// How the principal of a client of another site begins. No MQTT string has this character, so no principal of this
/// site is ever equal to one of another.
const ROUTED: char = '\0';

/// Who asks: one client, as far as the ingress can tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The authenticated identity, or the reply id where an external broker hides it; `None` for an anonymous client.
    /// That of a client of another site is made by [`Client::routed`].
    pub principal: Option<Arc<str>>,
    /// What service is fair between where there is no principal: one client id of the embedded broker. For a client of
    /// another site the way of its request.
    pub flow: Arc<str>,
    /// Whom all that it makes the gateway hold and do is counted for: the principal, else the address that it comes
    /// from; where an external broker hides that, the reply id. For a client of another site, that site.
    pub account: Arc<str>,
    /// Whether it came over WebSocket, as any web page can.
    pub web: bool,
}

impl Client {
    /// A client of the site behind this gate, which names it so. Its request has been handed on by the gates of `path`
    /// before.
    pub fn routed(gate: &str, principal: Option<&str>, web: bool, path: &[String]) -> Client {
        let name: Arc<str> = format!("{ROUTED}{gate}/{}", principal.unwrap_or_default()).into();
        let mut flow = ROUTED.to_string();
        path.iter().for_each(|gate| flow.extend([gate.as_str(), "/"]));
        flow.push_str(gate);
        Client { principal: Some(name), flow: flow.into(), account: format!("gate {gate}").into(), web }
    }

    /// The gates that its request has come through, the first one first; none for a client of this site.
    pub fn path(&self) -> Vec<&str> {
        let path = self.is_routed().then(|| routed_name(&self.flow)).flatten();
        path.map(|path| path.split('/').collect()).unwrap_or_default()
    }

    /// Whether it is a client of another site.
    pub fn is_routed(&self) -> bool {
        self.principal.as_deref().is_some_and(|principal| routed_name(principal).is_some())
    }

    /// What its requests are counted by: its flow, and its account.
    pub fn flow_key(&self) -> Flow {
        Flow::new(self.account.clone(), self.key().clone())
    }

    /// What it is known by, and what service is fair between within an account.
    pub fn key(&self) -> &Arc<str> {
        self.principal.as_ref().unwrap_or(&self.flow)
    }

    /// What it is called: `<gate>/<principal>` for a client of another site.
    pub fn name(&self) -> &str {
        routed_name(self.key()).unwrap_or(self.key())
    }
}

/// `<gate>/<principal>`, if this is the principal of a client of another site.
pub fn routed_name(principal: &str) -> Option<&str> {
    principal.strip_prefix(ROUTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_of_this_site_is_one_of_another() {
        let routed = Client::routed("north", Some("plc"), false, &[]);
        assert_eq!((routed.name(), routed.is_routed()), ("north/plc", true));
        assert_eq!(Client::routed("north", None, false, &[]).name(), "north/");
        let path = ["west".to_owned(), "east".to_owned()];
        assert_eq!(Client::routed("north", None, false, &path).path(), ["west", "east", "north"]);
        let namesake = Client {
            principal: Some("north/plc".into()),
            flow: "c".into(),
            account: "user".into(),
            web: false,
        };
        assert_eq!((namesake.name(), namesake.is_routed()), (routed.name(), false));
        assert_ne!(namesake.key(), routed.key());
        assert!(namesake.path().is_empty());
    }
}
