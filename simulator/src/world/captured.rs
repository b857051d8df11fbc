//! What of a world is captured as packets.

use super::World;
use super::capture::Message;
use super::observer::Observer;
use crate::clock::Nanos;
use crate::model::{Outcome, Request};
use crate::scenario::Spread;

/// A moment at which packets are captured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Captured {
    /// A device sends a request.
    Sent,
    /// A gateway, or a broker, has it.
    Arrived,
    /// A device has its answer.
    Answered(Outcome),
}

impl<O: Observer> World<'_, O> {
    #[inline]
    pub(super) fn captures(&mut self, what: Captured, request: u32, now: Nanos) {
        if self.trace.is_some() {
            self.captures_traced(what, request, now);
        }
    }

    #[cold]
    fn captures_traced(&mut self, what: Captured, request: u32, now: Nanos) {
        let Some(capture) = self.trace.as_mut().and_then(|trace| trace.capture.as_mut()) else { return };
        let Request { number, key: (_, device), group, attempt, .. } = self.requests[request];
        let group = &self.groups[group as usize];
        let (of, program) = (group.devices, group.program);
        let server = match group.gateways.spread {
            Spread::Home => group.home(device),
            // The broker is drawn as the first of its gateways.
            Spread::Rotation | Spread::Queue => self.first_gateways[of.gateway],
        };
        let (again, qos) = (attempt > 0, of.qos);
        match what {
            Captured::Sent => capture.connects(device, server, now),
            Captured::Arrived => {
                let site = of.to.map(|site| format!("net/{}/", self.scenario.sites[site].name));
                let topic = format!("{}localCode/{device}", site.unwrap_or_default());
                let text = format!("{{\"program\": \"{}\", \"id\": \"{number}\"}}", program.name);
                let bytes = program.request;
                capture.request(&Message { device, server, topic: &topic, text, bytes, qos, again }, now);
            }
            Captured::Answered(outcome) => {
                let topic = format!("result/{device}");
                let text = format!("{{\"id\": \"{number}\", \"outcome\": \"{}\"}}", outcome.name());
                let bytes = program.answer;
                let message = Message { device, server, topic: &topic, text, bytes, qos, again: false };
                capture.answer(&message, now);
            }
        }
    }
}
