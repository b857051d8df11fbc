//! CONNECT (section 3.1). The client that sends one is not known yet, so nothing of it is copied or decoded but what
//! authentication needs; the will, which may be large, is when its client is let in.

use crate::{
    config::Config,
    packet::{
        fields::Fields,
        properties::{self, Property, Section},
        will::{Will, WillFields},
    },
    reason::{Reason, Violation},
    version::Version,
};

/// Which protocol a CONNECT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Offered(Version),
    /// A version of MQTT before 5 that is not offered: 3.1, or a bridge's variant of it.
    Older,
    /// A version after 5.
    Newer,
}

/// The protocol level of 3.1.1 with the bit that Mosquitto sets for a bridge, unless its `try_private` is false.
const BRIDGE_LEVEL: u8 = 0x84;

/// What the first fields of a CONNECT say; an error if it is not MQTT at all.
pub(crate) fn protocol(body: &[u8]) -> Result<Protocol, Violation> {
    let mut fields = Fields::new(body);
    let name = fields.string()?;
    let level = fields.byte()?;
    match (name, level) {
        ("MQTT", 4 | BRIDGE_LEVEL) => Ok(Protocol::Offered(Version::V311)),
        ("MQTT", 5) => Ok(Protocol::Offered(Version::V5)),
        ("MQTT", 6..0x80) => Ok(Protocol::Newer),
        ("MQTT" | "MQIsdp", _) => Ok(Protocol::Older),
        _ => Err(Violation::new(Reason::UnsupportedProtocolVersion, "not MQTT")),
    }
}

/// The body of a CONNECT, whose fields refer to its bytes.
pub(crate) struct ConnectPacket<'a> {
    pub version: Version,
    /// Another broker that speaks 3.1.1, and says that it is one.
    pub is_bridge: bool,
    pub client_id: &'a str,
    pub clean_start: bool,
    pub keep_alive: u16,
    /// Seconds; `None` for a persistent 3.1.1 session, which has no such limit of its own.
    pub session_expiry: Option<u32>,
    pub receive_maximum: u16,
    /// `None`: whatever fits in MQTT.
    pub max_packet_size: Option<u32>,
    pub authentication_method: bool,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    will: Option<WillFields<'a>>,
}

/// What a client that is let in asks of its session.
pub(crate) struct Connect {
    pub client_id: String,
    pub clean_start: bool,
    pub session_expiry: Option<u32>,
    pub receive_maximum: u16,
    pub max_packet_size: Option<u32>,
    pub will: Option<Will>,
}

impl<'a> ConnectPacket<'a> {
    /// Takes the body of a CONNECT of this version apart. What is wrong with the will is found later.
    pub fn read(body: &'a [u8], version: Version, config: &Config) -> Result<Self, Violation> {
        let mut fields = Fields::new(body);
        fields.string()?;
        let is_bridge = fields.byte()? == BRIDGE_LEVEL;
        let flags = fields.byte()?;
        let keep_alive = fields.two_bytes()?;
        if flags & 1 != 0 {
            return Err(Violation::malformed("reserved connect flag"));
        }
        let clean_start = flags & 2 != 0;
        let mut packet = Self {
            version,
            is_bridge,
            client_id: "",
            clean_start,
            keep_alive,
            session_expiry: match version {
                Version::V311 => clean_start.then_some(0),
                Version::V5 => Some(0),
            },
            receive_maximum: u16::MAX,
            max_packet_size: None,
            authentication_method: false,
            user_name: None,
            password: None,
            will: None,
        };
        let mut authentication_data = false;
        if version == Version::V5 {
            properties::read(&mut fields, Section::Connect, config, |property| match property {
                Property::SessionExpiry(seconds) => packet.session_expiry = Some(seconds),
                Property::ReceiveMaximum(maximum) => packet.receive_maximum = maximum,
                Property::MaximumPacketSize(size) => packet.max_packet_size = Some(size),
                Property::AuthenticationMethod => packet.authentication_method = true,
                Property::AuthenticationData => authentication_data = true,
                _ => {}
            })?;
        }
        if authentication_data && !packet.authentication_method {
            return Err(Violation::protocol("authentication data without a method")); // section 3.1.2.11.10
        }
        packet.client_id = fields.string()?;
        packet.will = WillFields::read(&mut fields, flags, version)?;
        if flags & 0x80 != 0 {
            packet.user_name = Some(fields.string()?);
        }
        if flags & 0x40 != 0 {
            if flags & 0x80 == 0 && version == Version::V311 {
                return Err(Violation::malformed("password without user name")); // [MQTT-3.1.2-22]
            }
            packet.password = Some(fields.binary()?);
        }
        if !fields.is_empty() {
            return Err(Violation::malformed("bytes after the last field"));
        }
        Ok(packet)
    }

    /// The topic of its will, for the log.
    pub fn will_topic(&self) -> Option<&'a str> {
        self.will.as_ref().and_then(|will| Fields::text(will.topic).ok())
    }

    /// Decodes what is left, for a client that is let in.
    pub fn decode(&self, config: &Config) -> Result<Connect, Violation> {
        Ok(Connect {
            client_id: self.client_id.to_owned(),
            clean_start: self.clean_start,
            session_expiry: self.session_expiry,
            receive_maximum: self.receive_maximum,
            max_packet_size: self.max_packet_size,
            will: self.will.as_ref().map(|will| will.decode(self.version, config)).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::QoS;

    const V5: &[u8] =
        b"\x00\x04MQTT\x05\xCE\x00\x3C\x05\x11\x00\x00\x00\x0A\x00\x01c\x07\x18\x00\x00\x00\x05\x01\x01\
        \x00\x01w\x00\x01m\x00\x01u\x00\x02\xFF\xFE";
    const V311: &[u8] = b"\x00\x04MQTT\x04\xCE\x00\x3C\x00\x01c\x00\x01w\x00\x01m\x00\x01u\x00\x02\xFF\xFE";

    #[test]
    fn a_password_that_is_not_utf_8_is_no_obstacle() {
        let config = Config::default();
        for (body, version) in [(V5, Version::V5), (V311, Version::V311)] {
            assert_eq!(protocol(body), Ok(Protocol::Offered(version)));
            let packet = ConnectPacket::read(body, version, &config).unwrap();
            assert_eq!((packet.client_id, packet.keep_alive), ("c", 60));
            assert_eq!((packet.user_name, packet.password), (Some("u"), Some(&b"\xFF\xFE"[..])));
            let Will { message, delay } = packet.decode(&config).unwrap().will.unwrap();
            assert_eq!(
                (&*message.topic, &message.payload[..], message.qos),
                ("w", &b"m"[..], QoS::AtLeastOnce)
            );
            let v5 = version == Version::V5;
            assert_eq!((delay, packet.session_expiry), if v5 { (5, Some(10)) } else { (0, Some(0)) });
            let format = message.properties.and_then(|properties| properties.payload_format);
            assert_eq!(format, v5.then_some(1));
        }
    }

    /// A CONNECT of MQTT 5 with `connect` user properties, and a will with `will`.
    fn with_user_properties(connect: usize, will: usize) -> Vec<u8> {
        let section = |count: usize| {
            let mut section = bytes::BytesMut::new();
            crate::packet::fields::put_variable(&mut section, 5 * count);
            section.extend_from_slice(&[38, 0, 0, 0, 0].repeat(count));
            section.to_vec()
        };
        [
            &b"\x00\x04MQTT\x05\x06\x00\x00"[..],
            &section(connect),
            b"\x00\x01c",
            &section(will),
            b"\x00\x01w\x00\x00",
        ]
        .concat()
    }

    #[test]
    fn user_properties_are_bounded_in_number_and_the_wills_are_not_looked_at_before_it_is_wanted() {
        let config = Config { max_connect_user_properties: 3, ..Config::default() };
        let read = |body: &[u8]| {
            ConnectPacket::read(body, Version::V5, &config).map(|packet| packet.decode(&config).map(drop))
        };
        let quota = |violation: Violation| violation.reason == Reason::QuotaExceeded;
        assert_eq!(read(&with_user_properties(3, 3)), Ok(Ok(())));
        assert!(read(&with_user_properties(4, 0)).is_err_and(quota));
        assert!(read(&with_user_properties(0, 50_000)).unwrap().is_err_and(quota));
    }
}
