//! A broker between devices and several gateways: who gets the next request.

use std::collections::VecDeque;

use crate::scenario::Spread;

/// A broker that several gateways of one kind have together.
#[derive(Debug)]
pub struct Broker {
    spread: Spread,
    /// Requests that one gateway may have unanswered, of a work queue.
    window: u32,
    waiting: VecDeque<u32>,
    /// By gateway: requests that it has and has not answered.
    held: Vec<u32>,
    /// Who is next.
    next: usize,
}

impl Broker {
    /// For this many gateways; `None` where each has its own.
    pub fn new(spread: Spread, window: u32, gateways: usize) -> Option<Self> {
        let broker = Self { spread, window, waiting: VecDeque::new(), held: vec![0; gateways], next: 0 };
        (spread != Spread::Home).then_some(broker)
    }

    /// A request comes: the gateway that gets it, or none as long as it waits.
    pub fn offer(&mut self, request: u32, is_reachable: impl Fn(usize) -> bool) -> Option<usize> {
        let gateway = if self.waiting.is_empty() { self.choose(is_reachable) } else { None };
        if gateway.is_none() {
            self.waiting.push_back(request);
        }
        gateway
    }

    /// The next request that waits and the gateway that gets it, if one can.
    pub fn hand_out(&mut self, is_reachable: impl Fn(usize) -> bool) -> Option<(u32, usize)> {
        if self.waiting.is_empty() {
            return None;
        }
        let gateway = self.choose(is_reachable)?;
        self.waiting.pop_front().map(|request| (request, gateway))
    }

    /// A gateway has answered a request.
    pub fn answered(&mut self, gateway: usize) {
        self.held[gateway] = self.held[gateway].saturating_sub(1);
    }

    /// Requests that a gateway has and has not answered.
    pub fn held(&self, gateway: usize) -> Option<u32> {
        self.held.get(gateway).copied()
    }

    /// A gateway has crashed, and has this many requests left.
    pub fn crashed(&mut self, gateway: usize, left: usize) {
        self.held[gateway] = left as u32;
    }

    /// In rotation: of those that can be reached, and of a work queue have room.
    fn choose(&mut self, is_reachable: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.held.len();
        let has_room = |gateway: usize| self.spread == Spread::Rotation || self.held[gateway] < self.window;
        let from = self.next;
        let mut others = (0..count).map(|step| (from + step) % count);
        let gateway = others.find(|gateway| has_room(*gateway) && is_reachable(*gateway))?;
        self.held[gateway] += 1;
        self.next = (gateway + 1) % count;
        Some(gateway)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_passes_over_who_cannot_be_reached() {
        let mut broker = Broker::new(Spread::Rotation, 1, 3).unwrap();
        let got: Vec<_> = (0..4).map(|request| broker.offer(request, |gateway| gateway != 1)).collect();
        assert_eq!(got, [Some(0), Some(2), Some(0), Some(2)]);
        assert!(Broker::new(Spread::Home, 1, 3).is_none());
    }

    #[test]
    fn a_work_queue_hands_out_what_waits_when_there_is_room_in_the_order_in_which_it_came() {
        let mut broker = Broker::new(Spread::Queue, 1, 2).unwrap();
        let got: Vec<_> = (0..4).map(|request| broker.offer(request, |_| true)).collect();
        assert_eq!(got, [Some(0), Some(1), None, None]);
        assert_eq!(broker.hand_out(|_| true), None);
        broker.answered(1);
        assert_eq!(broker.hand_out(|_| true), Some((2, 1)));
        broker.crashed(0, 0);
        assert_eq!(
            (broker.hand_out(|gateway| gateway != 0), broker.hand_out(|_| true)),
            (None, Some((3, 0)))
        );
    }
}
