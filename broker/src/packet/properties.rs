//! Property sections of MQTT 5 (section 2.2.2): which are allowed where, once only, within their bounds.

use bytes::Bytes;

use crate::{
    config::Config,
    message::Properties,
    packet::fields::Fields,
    reason::{Reason, Violation},
};

/// The packet, or part of one, that a property section belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Connect,
    Will,
    Publish,
    Subscribe,
    Unsubscribe,
    Acknowledgement,
    Disconnect,
}

/// A property that the broker itself needs from a packet; the others are only checked.
pub(crate) enum Property<'a> {
    PayloadFormat(u8),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SessionExpiry(u32),
    SubscriptionId(u32),
    AuthenticationMethod,
    AuthenticationData,
    WillDelay(u32),
    ReceiveMaximum(u16),
    MaximumPacketSize(u32),
    TopicAlias(u16),
    User(&'a str, &'a str),
    Other,
}

impl Property<'_> {
    /// Keeps a property that travels with its message.
    pub fn keep(self, properties: &mut Properties) {
        match self {
            Self::PayloadFormat(format) => properties.payload_format = Some(format),
            Self::MessageExpiry(seconds) => properties.message_expiry = Some(seconds),
            Self::ContentType(text) => properties.content_type = Some(text.to_owned()),
            Self::ResponseTopic(topic) => properties.response_topic = Some(topic.to_owned()),
            Self::CorrelationData(data) => properties.correlation_data = Some(Bytes::copy_from_slice(data)),
            Self::User(name, value) => properties.user_properties.push(name, value),
            _ => {}
        }
    }
}

/// A property section as it stands, with its length, not looked into.
pub(crate) fn section<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Violation> {
    let from = fields.rest();
    let len = fields.variable()? as usize;
    fields.take(len)?;
    Ok(&from[..from.len() - fields.rest().len()])
}

/// Reads a property section to its end, handing each property to `each`.
pub(crate) fn read<'a>(
    fields: &mut Fields<'a>,
    section: Section,
    config: &Config,
    mut each: impl FnMut(Property<'a>),
) -> Result<(), Violation> {
    let len = fields.variable()? as usize;
    if len > config.max_properties_size {
        return Err(Violation::new(Reason::QuotaExceeded, "property section too large"));
    }
    let mut fields = Fields::new(fields.take(len)?);
    let mut seen = 0u64;
    let mut user_properties = match section {
        Section::Connect | Section::Will => config.max_connect_user_properties,
        _ => config.max_user_properties,
    };
    while !fields.is_empty() {
        let id = fields.byte()?;
        if !allowed(id, section) {
            return Err(Violation::protocol("a property that does not belong to the packet"));
        }
        if id == USER_PROPERTY {
            let Some(left) = user_properties.checked_sub(1) else {
                return Err(Violation::new(Reason::QuotaExceeded, "too many user properties"));
            };
            user_properties = left;
        } else {
            if seen & 1 << id != 0 {
                return Err(Violation::protocol("a property given twice"));
            }
            seen |= 1 << id;
        }
        each(property(id, &mut fields)?);
    }
    Ok(())
}

const USER_PROPERTY: u8 = 38;

fn allowed(id: u8, section: Section) -> bool {
    use Section::{Acknowledgement, Connect, Disconnect, Publish, Subscribe, Will};
    match id {
        1 | 2 | 3 | 8 | 9 => matches!(section, Publish | Will),
        // A client sends subscription identifiers in SUBSCRIBE only [MQTT-3.3.4-6].
        11 => section == Subscribe,
        17 => matches!(section, Connect | Disconnect),
        21 | 22 | 23 | 25 | 33 | 34 | 39 => section == Connect,
        24 => section == Will,
        31 => matches!(section, Acknowledgement | Disconnect),
        35 => section == Publish,
        USER_PROPERTY => true,
        _ => false,
    }
}

fn property<'a>(id: u8, fields: &mut Fields<'a>) -> Result<Property<'a>, Violation> {
    Ok(match id {
        1 => Property::PayloadFormat(flag(fields)?),
        2 => Property::MessageExpiry(fields.four_bytes()?),
        3 => Property::ContentType(fields.string()?),
        // One with a wildcard [MQTT-3.3.2-14] is passed on: whoever would answer refuses it with an error, which helps
        // a device more than a closed connection that it opens again with the same message.
        8 => Property::ResponseTopic(fields.string()?),
        9 => Property::CorrelationData(fields.binary()?),
        11 => match fields.variable()? {
            0 => return Err(Violation::protocol("subscription identifier 0")),
            id => Property::SubscriptionId(id),
        },
        17 => Property::SessionExpiry(fields.four_bytes()?),
        21 => {
            fields.string()?;
            Property::AuthenticationMethod
        }
        31 => {
            fields.string()?;
            Property::Other
        }
        22 => {
            fields.binary()?;
            Property::AuthenticationData
        }
        23 | 25 => {
            flag(fields)?;
            Property::Other
        }
        24 => Property::WillDelay(fields.four_bytes()?),
        33 => match fields.two_bytes()? {
            0 => return Err(Violation::protocol("receive maximum 0")),
            maximum => Property::ReceiveMaximum(maximum),
        },
        34 => {
            fields.two_bytes()?;
            Property::Other
        }
        35 => match fields.two_bytes()? {
            0 => return Err(Violation::new(Reason::TopicAliasInvalid, "topic alias 0")),
            alias => Property::TopicAlias(alias),
        },
        39 => match fields.four_bytes()? {
            0 => return Err(Violation::protocol("maximum packet size 0")),
            size => Property::MaximumPacketSize(size),
        },
        _ => Property::User(fields.string()?, fields.string()?),
    })
}

fn flag(fields: &mut Fields<'_>) -> Result<u8, Violation> {
    match fields.byte()? {
        value @ (0 | 1) => Ok(value),
        _ => Err(Violation::protocol("a property that is 0 or 1 has another value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(section: Section, bytes: &[u8]) -> Result<(), Reason> {
        let config = Config { max_properties_size: 1000, max_user_properties: 3, ..Config::default() };
        read(&mut Fields::new(bytes), section, &config, |_| {}).map_err(|violation| violation.reason)
    }

    #[test]
    fn user_properties_are_bounded_in_number() {
        let section = |count: usize| [&[5 * count as u8][..], &[38, 0, 0, 0, 0].repeat(count)].concat();
        assert_eq!(check(Section::Publish, &section(3)), Ok(()));
        assert_eq!(check(Section::Publish, &section(4)), Err(Reason::QuotaExceeded));
        assert_eq!(check(Section::Connect, &section(4)), Ok(()), "they have their own limit");
    }

    #[test]
    fn sections_end_where_they_say() {
        assert_eq!(check(Section::Publish, &[0]), Ok(()));
        assert_eq!(check(Section::Publish, &[2, 1, 1]), Ok(()));
        // The codec would read this string beyond the section, into the payload.
        assert_eq!(
            check(Section::Publish, &[3, 3, 0, 4, b'a', b'b', b'c', b'd']),
            Err(Reason::MalformedPacket)
        );
        assert_eq!(check(Section::Publish, &[9, 1, 1]), Err(Reason::MalformedPacket));
    }

    #[test]
    fn properties_are_refused_where_they_do_not_belong() {
        assert_eq!(check(Section::Subscribe, &[2, 1, 1]), Err(Reason::ProtocolError));
        assert_eq!(check(Section::Publish, &[2, 11, 1]), Err(Reason::ProtocolError));
        assert_eq!(check(Section::Publish, &[1, 0]), Err(Reason::ProtocolError));
        assert_eq!(check(Section::Publish, &[1, 200]), Err(Reason::ProtocolError));
    }

    #[test]
    fn values_out_of_range_and_repetitions_are_refused() {
        assert_eq!(check(Section::Publish, &[4, 1, 1, 1, 1]), Err(Reason::ProtocolError));
        assert_eq!(check(Section::Publish, &[2, 1, 2]), Err(Reason::ProtocolError));
        assert_eq!(check(Section::Publish, &[3, 35, 0, 0]), Err(Reason::TopicAliasInvalid));
        assert_eq!(check(Section::Connect, &[3, 33, 0, 0]), Err(Reason::ProtocolError));
        assert_eq!(check(Section::Publish, &[4, 8, 0, 1, b'#']), Ok(()), "for the one who answers to refuse");
        assert_eq!(
            check(Section::Publish, &[10, 38, 0, 1, b'a', 0, 0, 38, 0, 0, 0, 0]),
            Err(Reason::MalformedPacket)
        );
        assert_eq!(check(Section::Publish, &[11, 38, 0, 1, b'a', 0, 0, 38, 0, 0, 0, 0]), Ok(()));
    }

    #[test]
    fn a_section_over_the_limit_is_refused() {
        assert_eq!(check(Section::Publish, &[0xE9, 0x07]), Err(Reason::QuotaExceeded));
    }
}
