//! The window of unacknowledged requests: what is in flight between an external broker and the gateway. These are
//! requests that wait for their answer, and answers that wait for the broker's acknowledgement. A notice of the
//! gateway's own goes the way of an answer to no request.
//!
//! The order that loses nothing: the answer is published, the broker acknowledges it, then the request is acknowledged.
//! - The gateway dies before the last step: the broker delivers the request again, to us or to another gateway, and
//!   its answer may come twice.
//! - The connection is lost: answers that the broker has not acknowledged are published again. Requests that it
//!   delivers again are recognised (same session, same packet identifier, same content, DUP) and are not run again.
//! - The broker dies: it comes back with what it had persisted. Every request that it still holds is delivered again;
//!   every answer that it has not acknowledged is still here.

use std::collections::{HashMap, VecDeque};

/// Answers that wait for the broker, at most. Requests at QoS 1 cannot exceed it, since there are only 65 535 packet
/// identifiers; it bounds a flood at QoS 0.
const MAX_WAITING: usize = 65_536;
/// Bytes of answers that wait for the broker, at most: while it is away they all have to be held here.
const MAX_WAITING_BYTES: usize = 256 << 20;

/// Names one delivery that the broker wants to have acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    packet_id: u16,
    delivery: u64,
}

/// What a delivery turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A request that was not seen before.
    New(Receipt),
    /// Delivered again while it runs, or after its answer.
    Again,
}

/// A request that is not acknowledged, or whose acknowledgement may have been lost.
#[derive(Debug)]
struct Request {
    delivery: u64,
    content: u64,
    /// The connection that it was last delivered on: acknowledging it on another one would be a protocol error.
    connection: u64,
    answered: bool,
}

/// An answer with its place among all answers.
#[derive(Debug)]
struct Numbered<A> {
    number: u64,
    receipt: Option<Receipt>,
    /// Bytes that it counts for, whatever it may be replaced by.
    weight: usize,
    answer: A,
}

/// The requests and answers, of type `A`, that are in flight; see the [module](self).
#[derive(Debug)]
pub struct Window<A> {
    connection: u64,
    deliveries: u64,
    answers: u64,
    /// By packet identifier, so never more than 65 535.
    requests: HashMap<u16, Request>,
    /// Answers to publish, in order.
    waiting: VecDeque<Numbered<A>>,
    waiting_bytes: usize,
    /// Answers handed to the connection, which has not yet given them a packet identifier.
    handed: VecDeque<Numbered<A>>,
    /// Answers on the wire, by packet identifier.
    unconfirmed: HashMap<u16, Numbered<A>>,
    /// Requests to acknowledge, in order.
    acknowledgements: VecDeque<u16>,
    /// Requests that were given up on this connection. Each holds one of the places that the broker has for us, and
    /// comes again with the next connection, not before.
    released: usize,
}

impl<A> Default for Window<A> {
    fn default() -> Self {
        Self {
            connection: 0,
            deliveries: 0,
            answers: 0,
            requests: HashMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            handed: VecDeque::new(),
            unconfirmed: HashMap::new(),
            acknowledgements: VecDeque::new(),
            released: 0,
        }
    }
}

impl<A> Window<A> {
    /// A connection is established. Without the session that we had, packet identifiers mean nothing any more.
    pub fn connected(&mut self, session_present: bool) {
        self.connection += 1;
        self.released = 0;
        if !session_present {
            self.requests.clear();
        }
    }

    /// The connection has ended: what it carried and nobody acknowledged is to be published again, in order.
    pub fn disconnected(&mut self) {
        self.acknowledgements.clear();
        let mut again: Vec<Numbered<A>> = self.unconfirmed.drain().map(|(_, answer)| answer).collect();
        again.extend(self.handed.drain(..));
        again.sort_by_key(|answer| answer.number);
        for answer in again.into_iter().rev() {
            self.waiting_bytes += answer.weight;
            self.waiting.push_front(answer);
        }
    }

    /// The broker delivers `packet_id`; `content` is a hash of all that makes the request.
    pub fn received(&mut self, packet_id: u16, dup: bool, content: u64) -> Received {
        let connection = self.connection;
        if let Some(request) = self.requests.get_mut(&packet_id)
            && dup
            && request.content == content
            && request.connection != connection
        {
            request.connection = connection;
            if request.answered {
                self.acknowledgements.push_back(packet_id);
            }
            return Received::Again;
        }
        self.deliveries += 1;
        let receipt = Receipt { packet_id, delivery: self.deliveries };
        let request = Request { delivery: receipt.delivery, content, connection, answered: false };
        self.requests.insert(packet_id, request);
        Received::New(receipt)
    }

    /// Takes over an answer of this many bytes. False when too many wait already: it is dropped then, and its request
    /// forgotten, so that it is run again when the broker delivers it again.
    pub fn answer(&mut self, receipt: Option<Receipt>, answer: A, weight: usize) -> bool {
        if self.waiting.len() >= MAX_WAITING || self.waiting_bytes + weight > MAX_WAITING_BYTES {
            receipt.inspect(|receipt| self.release(*receipt));
            return false;
        }
        self.answers += 1;
        self.waiting_bytes += weight;
        self.waiting.push_back(Numbered { number: self.answers, receipt, weight, answer });
        true
    }

    /// Whether nothing waits to be published: what may be left out waits elsewhere until then.
    pub fn nothing_waits(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next answer to publish while fewer than `limit` are on their way.
    pub fn next_answer(&mut self, limit: usize) -> Option<&mut A> {
        let room = self.handed.len() + self.unconfirmed.len() < limit;
        self.waiting.front_mut().filter(|_| room).map(|next| &mut next.answer)
    }

    /// The next answer was handed to the connection.
    pub fn handed_over(&mut self) {
        if let Some(next) = self.waiting.pop_front() {
            self.waiting_bytes -= next.weight;
            self.handed.push_back(next);
        }
    }

    /// The next answer cannot be published at all: its request is done.
    pub fn give_up(&mut self) {
        if let Some(next) = self.waiting.pop_front() {
            self.waiting_bytes -= next.weight;
            next.receipt.inspect(|receipt| self.settle(*receipt));
        }
    }

    /// The connection wrote the oldest answer that was handed over, as `packet_id`; 0 is QoS 0, which nobody
    /// acknowledges.
    pub fn published(&mut self, packet_id: u16) {
        let Some(answer) = self.handed.pop_front() else { return };
        if packet_id == 0 {
            answer.receipt.inspect(|receipt| self.settle(*receipt));
        } else {
            self.unconfirmed.insert(packet_id, answer);
        }
    }

    /// The broker has answer `packet_id`.
    pub fn confirmed(&mut self, packet_id: u16) -> Option<A> {
        let confirmed = self.unconfirmed.remove(&packet_id)?;
        confirmed.receipt.inspect(|receipt| self.settle(*receipt));
        Some(confirmed.answer)
    }

    /// Nothing more is to be done for a request: acknowledges it, now or when it is delivered again.
    pub fn settle(&mut self, receipt: Receipt) {
        let Some(request) = self.requests.get_mut(&receipt.packet_id) else { return };
        if request.delivery == receipt.delivery {
            request.answered = true;
            if request.connection == self.connection {
                self.acknowledgements.push_back(receipt.packet_id);
            }
        }
    }

    /// The gateway gave a request up: it is not acknowledged, and run again when it is delivered again.
    pub fn release(&mut self, receipt: Receipt) {
        let Some(request) = self.requests.get(&receipt.packet_id) else { return };
        if request.delivery == receipt.delivery {
            self.released += usize::from(request.connection == self.connection);
            self.requests.remove(&receipt.packet_id);
        }
    }

    /// Requests that were given up and that the broker would deliver again on a new connection, when there is room for
    /// their answers again; none before that.
    pub fn to_be_delivered_again(&self) -> usize {
        if self.waiting.is_empty() { self.released } else { 0 }
    }

    /// The next request to acknowledge.
    pub fn next_acknowledgement(&self) -> Option<u16> {
        self.acknowledgements.front().copied()
    }

    /// The next acknowledgement was handed to the connection.
    pub fn acknowledged(&mut self) {
        self.acknowledgements.pop_front();
    }

    /// Whether every answer that was taken over has reached the broker, and every due acknowledgement the connection.
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
            && self.handed.is_empty()
            && self.unconfirmed.is_empty()
            && self.acknowledgements.is_empty()
    }
}

#[cfg(test)]
mod tests;
