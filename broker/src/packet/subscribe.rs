//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10), read filter by filter where they stand in the input: one packet
//! may hold more filters than others should wait for, or than there is memory for what would be made of them.

use bytes::{BufMut, BytesMut};

use crate::{
    config::Config,
    message::QoS,
    packet::{
        fields::{Fields, put_variable},
        frame::{Frame, Kind},
        properties::{self, Property, Section},
    },
    reason::{Reason, Violation},
    version::Version,
};

/// A packet of filters, and how far it is answered.
pub(crate) struct FilterPacket {
    id: u16,
    version: Version,
    /// Of all its subscriptions.
    subscription_id: Option<u32>,
    /// Bytes of the body that are read.
    read: usize,
    /// What SUBACK or UNSUBACK says of the filters that are read.
    codes: Vec<u8>,
}

pub(crate) struct Filter<'a> {
    /// As it came: whether it is one is not checked.
    pub path: &'a str,
    /// `None` in UNSUBSCRIBE.
    pub request: Option<SubscriptionRequest>,
}

/// How a subscription wants its messages (section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SubscriptionOptions {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub id: Option<u32>,
}

/// How a subscription is meant (section 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionRequest {
    pub options: SubscriptionOptions,
    pub retain_handling: RetainHandling,
}

/// Which retained messages a subscription gets (Retain Handling, section 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetainHandling {
    Always,
    IfNew,
    Never,
}

impl FilterPacket {
    /// Reads what stands before the filters.
    pub fn begin(frame: &Frame<'_>, version: Version, config: &Config) -> Result<Self, Violation> {
        let mut fields = Fields::new(frame.body);
        let id = fields.packet_id()?;
        let mut subscription_id = None;
        if version == Version::V5 {
            let section =
                if frame.kind == Kind::Subscribe { Section::Subscribe } else { Section::Unsubscribe };
            properties::read(&mut fields, section, config, |property| {
                if let Property::SubscriptionId(id) = property {
                    subscription_id = Some(id);
                }
            })?;
        }
        if fields.is_empty() {
            return Err(Violation::protocol("no filter")); // [MQTT-3.8.3-2], [MQTT-3.10.3-2]
        }
        let read = frame.body.len() - fields.rest().len();
        Ok(Self { id, version, subscription_id, read, codes: Vec::new() })
    }

    /// The next filter; `None` when all are read. To be answered before the next.
    pub fn next<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Filter<'a>>, Violation> {
        let mut fields = Fields::new(&frame.body[self.read..]);
        if fields.is_empty() {
            return Ok(None);
        }
        let path = fields.string()?;
        let request = match frame.kind {
            Kind::Subscribe => Some(self.request(fields.byte()?)?),
            _ => None,
        };
        self.read = frame.body.len() - fields.rest().len();
        Ok(Some(Filter { path, request }))
    }

    /// The options of a subscription (section 3.8.3.1; in 3.1.1 a QoS).
    fn request(&self, bits: u8) -> Result<SubscriptionRequest, Violation> {
        const IMPOSSIBLE: Violation = Violation::malformed("impossible subscription options");
        let reserved = if self.version == Version::V5 { 0xC0 } else { 0xFC };
        let qos = QoS::from_bits(bits & 3).filter(|_| bits & reserved == 0).ok_or(IMPOSSIBLE)?;
        let retain_handling = match bits >> 4 & 3 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(IMPOSSIBLE),
        };
        let options = SubscriptionOptions {
            qos,
            no_local: bits & 4 != 0,
            retain_as_published: bits & 8 != 0,
            id: self.subscription_id,
        };
        Ok(SubscriptionRequest { options, retain_handling })
    }

    /// What becomes of a filter of SUBSCRIBE.
    pub fn granted(&mut self, granted: Result<QoS, Reason>) {
        self.codes.push(match (granted, self.version) {
            (Ok(qos), _) => qos as u8,
            (Err(_), Version::V311) => 0x80,
            (Err(reason), Version::V5) => reason as u8,
        });
    }

    /// What becomes of a filter of UNSUBSCRIBE: whether there was such a subscription. UNSUBACK of 3.1.1 has no codes.
    pub fn removed(&mut self, removed: bool) {
        if self.version == Version::V5 {
            self.codes.push(if removed { Reason::Success } else { Reason::NoSubscriptionExisted } as u8);
        }
    }

    /// Appends SUBACK or UNSUBACK, when all filters are read.
    pub fn acknowledge(self, frame: &Frame<'_>, out: &mut BytesMut) {
        let properties: &[u8] = if self.version == Version::V5 { &[0] } else { &[] };
        out.put_u8(if frame.kind == Kind::Subscribe { 0x90 } else { 0xB0 });
        put_variable(out, 2 + properties.len() + self.codes.len());
        out.put_u16(self.id);
        out.put_slice(properties);
        out.put_slice(&self.codes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::frame;

    #[test]
    fn a_packet_is_read_filter_by_filter_and_acknowledged_with_a_code_each() {
        let subscribe = b"\x82\x0D\x00\x07\x02\x0B\x05\x00\x01a\x01\x00\x01b\x2E";
        let unsubscribe = b"\xA2\x09\x00\x07\x00\x00\x01a\x00\x01b";
        for (bytes, acknowledged) in
            [(&subscribe[..], &[0x90, 5, 0, 7, 0, 1, 0x8F]), (unsubscribe, &[0xB0, 5, 0, 7, 0, 0, 0x11])]
        {
            let frame = frame::next(bytes, 100).unwrap().unwrap();
            let mut packet = FilterPacket::begin(&frame, Version::V5, &Config::default()).unwrap();
            let mut read = Vec::new();
            while let Some(filter) = packet.next(&frame).unwrap() {
                let first = read.is_empty();
                match filter.request {
                    Some(_) => packet.granted(if first {
                        Ok(QoS::AtLeastOnce)
                    } else {
                        Err(Reason::TopicFilterInvalid)
                    }),
                    None => packet.removed(first),
                }
                read.push((filter.path, filter.request));
            }
            let plain =
                SubscriptionOptions { qos: QoS::AtLeastOnce, id: Some(5), ..SubscriptionOptions::default() };
            let all = SubscriptionOptions {
                qos: QoS::ExactlyOnce,
                no_local: true,
                retain_as_published: true,
                ..plain
            };
            let request = |options, retain_handling| {
                (bytes == subscribe).then_some(SubscriptionRequest { options, retain_handling })
            };
            assert_eq!(
                read,
                [("a", request(plain, RetainHandling::Always)), ("b", request(all, RetainHandling::Never))]
            );
            let mut out = BytesMut::new();
            packet.acknowledge(&frame, &mut out);
            assert_eq!(&out[..], acknowledged);
        }
    }
}
