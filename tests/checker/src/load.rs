//! What devices send: a mix that follows from the seed.

use bytes::Bytes;

use crate::key::Key;
use crate::random::Random;
use crate::request::{Code, Request};

/// How long the guest of a slow request sleeps: longer than most kills take to come. Few are slow: what ran during a
/// crash may have to run alone after it, one by one.
const SLOW_MS: u32 = 300;
const SLOW_PERCENT: u64 = 10;

/// How long most others sleep, so that a kill finds them running; what is left does not sleep.
const SHORT_MS: std::ops::Range<u64> = 5..40;
const SHORT_FROM: u64 = 40;

/// Of a hundred requests, how many are large, and how large those are at most.
const LARGE_PERCENT: u64 = 3;
const LARGE_BYTES: u64 = 150_000;

/// What fills all others up, in bytes at most.
const SMALL_BYTES: u64 = 400;

/// Which kinds of messages are sent.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Requests.
    pub requests: bool,
    /// Those without an `id` as well.
    pub anonymous: bool,
    /// Ordinary messages to listeners, and retained ones.
    pub messages: bool,
    /// Requests at QoS 2 as well.
    pub exactly_once: bool,
}

impl Request {
    /// Whether it sleeps for long.
    pub fn is_slow(&self) -> bool {
        self.milliseconds >= SLOW_MS
    }
}

/// The request by which a device makes the guest known.
pub const FIRST: Request = Request { code: Code::Module, id: false, qos: 1, milliseconds: 0, filler: 0 };

/// The next request of a device; with an `id` only if it can have one, and slow only if it may be.
pub fn request(random: &mut Random, anonymous: bool, identified: bool, slow: bool) -> Request {
    let id = identified && (!anonymous || random.percent(45));
    // At QoS 0 a request is repeated until it is answered, which without an `id` would run it each time.
    let qos = match random.within(0..100) {
        0..15 if id => 0,
        15..40 => 2,
        _ => 1,
    };
    let code = match random.within(0..100) {
        0..45 if !id => Code::Sum,
        45..60 => Code::Module,
        _ => Code::Digest,
    };
    if code == Code::Sum {
        return Request { code, id, qos, milliseconds: 0, filler: 0 };
    }
    // The casts take less than the constants above.
    let milliseconds = match random.within(0..100) {
        0..SLOW_PERCENT if slow => SLOW_MS,
        SLOW_PERCENT..SHORT_FROM => 0,
        _ => random.within(SHORT_MS) as u32,
    };
    let most = if random.percent(LARGE_PERCENT) { LARGE_BYTES } else { SMALL_BYTES };
    let filler = random.within(0..most) as u32;
    Request { code, id, qos, milliseconds, filler }
}

/// Quality of service and payload of an ordinary message.
pub fn message(random: &mut Random, key: Key) -> (u8, Bytes) {
    let qos = if random.percent(50) { 1 } else { 2 };
    (qos, Bytes::from(format!("{key} {:016x}", random.number())))
}

/// Topic and payload of a retained message, of one client's few topics; some are taken back.
pub fn retained(random: &mut Random, key: Key) -> (String, Bytes) {
    let topic = format!("state/{}/{}", key.client, random.within(0..4));
    let payload = if random.percent(20) { Bytes::new() } else { Bytes::from(key.to_string()) };
    (topic, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_what_is_sent() {
        let requests = |seed| {
            let mut random = Random::new(seed, 1);
            [(); 64].map(|()| request(&mut random, true, true, true))
        };
        assert_eq!(requests(1), requests(1));
        assert_ne!(requests(1), requests(2));
    }

    #[test]
    fn ids_are_where_they_can_be_and_at_qos_0_always() {
        let mut random = Random::new(1, 1);
        for _ in 0..500 {
            let any = request(&mut random, true, true, false);
            assert!(any.qos > 0 || any.id, "{any:?}");
            assert!(any.milliseconds < SLOW_MS, "{any:?}");
            assert!(!any.id || any.code != Code::Sum, "{any:?}");
            assert!(!request(&mut random, true, false, true).id);
            assert!(request(&mut random, false, true, true).id);
        }
    }
}
