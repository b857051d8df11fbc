//! What a gateway does to the world around it, as it does it: its events go into the calendar at once, its answers wait
//! until it has done all that follows.

use offload_policy::GuestId;

use super::event::Event;
use crate::clock::Nanos;
use crate::clock::calendar::Calendar;
use crate::model::gateway::{Answer, Effects};

/// What one process of a gateway finds around it; see the [module](self).
pub(super) struct Agenda<'w> {
    pub(super) calendar: &'w mut Calendar<Event>,
    pub(super) answers: &'w mut Vec<Answer>,
    pub(super) gateway: u32,
    pub(super) incarnation: u16,
}

impl Effects for Agenda<'_> {
    #[inline(always)]
    fn slice_ends(&mut self, worker: usize, at: Nanos) {
        let (gateway, worker, incarnation) = (self.gateway, worker as u16, self.incarnation);
        self.calendar.schedule(at, Event::SliceEnds { gateway, worker, incarnation });
    }

    fn wakes(&mut self, worker: usize, guest: GuestId, at: Nanos) {
        let (gateway, worker, incarnation) = (self.gateway, worker as u16, self.incarnation);
        self.calendar.schedule(at, Event::Wakes { gateway, guest: guest as u32, worker, incarnation });
    }

    fn looks(&mut self, at: Nanos) {
        self.calendar.schedule(at, Event::Looks { gateway: self.gateway });
    }

    fn answers(&mut self, answer: Answer) {
        self.answers.push(answer);
    }
}
