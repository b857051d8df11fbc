//! A link: how long a packet is on its way.

use crate::clock::{MILLISECOND, Nanos, SECOND};
use crate::random::Stream;
use crate::scenario::Link;

/// The shortest time after which TCP sends again what was not acknowledged (Linux's `TCP_RTO_MIN`).
const MIN_RETRANSMISSION: Nanos = 200 * MILLISECOND;

/// A packet that was lost this often in a row comes through the next time: the connection would be given up long after.
const MAX_LOSSES: u32 = 8;

/// Bytes around a payload: the headers of IP, TCP and MQTT, and a topic.
const PACKET_OVERHEAD: u64 = 80;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To a gateway.
    Up,
    /// To a device.
    Down,
}

/// One kind of link, with what all its packets have done.
#[derive(Debug)]
pub struct LinkState {
    link: Link,
    /// When what devices of a gateway share is free, each way; empty where nothing is shared.
    free: Vec<[Nanos; 2]>,
    /// Bytes that it has carried.
    pub bytes: u64,
    /// Packets that were lost and sent again.
    pub lost: u64,
}

impl LinkState {
    /// A link of this kind, between devices and this many gateways.
    pub fn new(link: &Link, gateways: usize) -> Self {
        let free = if link.shared && link.bandwidth.is_some() { vec![[0; 2]; gateways] } else { Vec::new() };
        Self { link: link.clone(), free, bytes: 0, lost: 0 }
    }

    /// When a packet that is sent now is there.
    pub fn arrival(
        &mut self,
        gateway: u32,
        direction: Direction,
        payload: u64,
        now: Nanos,
        random: &mut Stream,
    ) -> Nanos {
        let Self { link, free, bytes, lost } = self;
        *bytes += payload + PACKET_OVERHEAD;
        let mut sent = now;
        if let Some(bandwidth) = link.bandwidth {
            let takes = (payload + PACKET_OVERHEAD) * 8 * SECOND / bandwidth;
            match free.get_mut(gateway as usize) {
                Some(free) => {
                    let free = &mut free[direction as usize];
                    *free = now.max(*free) + takes;
                    sent = *free;
                }
                None => sent += takes,
            }
        }
        let mut there = sent + link.latency;
        if link.jitter > 0 {
            there += random.exponential_time(link.jitter);
        }
        if let Some(tail) = link.tail.filter(|tail| random.chance(tail.part)) {
            let longer = tail.delay as f64 * libm::pow(1.0 - random.unit(), -1.0 / 1.5);
            there += (longer as Nanos).min(tail.most);
        }
        let mut timeout = MIN_RETRANSMISSION.max(3 * link.latency);
        for _ in 0..MAX_LOSSES {
            if !random.chance(link.loss) {
                break;
            }
            *lost += 1;
            there += timeout;
            timeout *= 2;
        }
        there
    }
}
