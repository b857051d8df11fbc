//! The will of a connection (sections 3.1.2.5 and 3.1.3): the message that the broker publishes when the client goes
//! without saying goodbye.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    config::Config,
    message::{Message, Properties, QoS},
    packet::{
        fields::Fields,
        properties::{self, Property, Section},
    },
    reason::Violation,
    version::Version,
};

#[derive(Clone, Debug)]
pub(crate) struct Will {
    pub message: Message,
    /// Seconds that it is held back, in case the client returns (section 3.1.3.2.2); 0 in 3.1.1.
    pub delay: u32,
}

/// A will as it stands in CONNECT, of which nothing is copied before its client is let in.
pub(crate) struct WillFields<'a> {
    /// With its length; empty in 3.1.1, which has none.
    properties: &'a [u8],
    pub topic: &'a [u8],
    payload: &'a [u8],
    qos: QoS,
    retain: bool,
}

impl<'a> WillFields<'a> {
    pub fn read(fields: &mut Fields<'a>, flags: u8, version: Version) -> Result<Option<Self>, Violation> {
        let qos = QoS::from_bits(flags >> 3 & 3);
        let (Some(qos), true) = (qos, flags & 0x04 != 0 || flags & 0x38 == 0) else {
            return Err(Violation::malformed("impossible will flags"));
        };
        if flags & 0x04 == 0 {
            return Ok(None);
        }
        let properties = match version {
            Version::V311 => &[],
            Version::V5 => properties::section(fields)?,
        };
        let (topic, payload) = (fields.binary()?, fields.binary()?);
        Ok(Some(Self { properties, topic, payload, qos, retain: flags & 0x20 != 0 }))
    }

    pub fn decode(&self, version: Version, config: &Config) -> Result<Will, Violation> {
        let mut delay = 0;
        let mut found = Properties::default();
        if version == Version::V5 {
            properties::read(&mut Fields::new(self.properties), Section::Will, config, |property| {
                match property {
                    Property::WillDelay(seconds) => delay = seconds,
                    property => property.keep(&mut found),
                }
            })?;
        }
        let message = Message {
            topic: Fields::text(self.topic)?.into(),
            // A copy, so that the CONNECT is not kept as long as the will.
            payload: Bytes::copy_from_slice(self.payload),
            qos: self.qos,
            retain: self.retain,
            properties: (found != Properties::default()).then(|| Arc::new(found)),
        };
        Ok(Will { message, delay })
    }
}
