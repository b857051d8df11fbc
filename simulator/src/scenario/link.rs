//! `[link.NAME]`: what is between a device and its gateway.

use super::reader::Section;
use super::units::{Bandwidth, Time};
use crate::clock::{MILLISECOND, Nanos, SECOND};

/// One kind of link. MQTT's packets travel by TCP: what is lost on the way is sent again, and comes late.
#[derive(Clone, Debug)]
pub struct Link {
    /// What devices call it.
    pub name: String,
    /// The least that a packet takes.
    pub latency: Nanos,
    /// The mean of what is added, exponentially distributed.
    pub jitter: Nanos,
    /// The part of packets that are lost, and sent again after a retransmission timeout.
    pub loss: f64,
    /// Bits a second, if they are bounded.
    pub bandwidth: Option<u64>,
    /// Whether all devices of a gateway share the bandwidth, or each has its own.
    pub shared: bool,
    /// The slow tail.
    pub tail: Option<Tail>,
}

/// Few packets take much longer: a radio that changes its cell.
#[derive(Clone, Copy, Debug)]
pub struct Tail {
    /// How many do.
    pub part: f64,
    /// How much longer: at least this, with a tail that falls by the power of 1.5.
    pub delay: Nanos,
    /// And at the most this.
    pub most: Nanos,
}

/// How a tail is written.
const TAIL: &str = "{ part = 0.001, delay = \"50ms\", most = \"5s\" }";

impl Link {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let link = Self {
            name: section.name().to_owned(),
            latency: section.or_within("latency", Time(MILLISECOND), Time(0)..=Time(3_600 * SECOND)).0,
            jitter: section.or_within("jitter", Time(0), Time(0)..=Time(3_600 * SECOND)).0,
            loss: section.or_within("loss", 0.0, 0.0..=0.9),
            bandwidth: section.optional::<Bandwidth>("bandwidth").map(|bandwidth| bandwidth.0),
            shared: section.or("shared", false),
            tail: section.table("tail", TAIL).map(|table| Tail::read(&table)),
        };
        section.finish();
        link
    }
}

impl Tail {
    fn read(section: &Section<'_>) -> Self {
        let part = section.required_within("part", 0.0..=1.0);
        let delay = section.required_within("delay", Time(1)..=Time(3_600 * SECOND)).0;
        let most = section.or_within("most", Time(100 * delay), Time(delay)..=Time::MAX).0;
        section.finish();
        Self { part, delay, most }
    }
}
