//! Checks CONNECT, SUBSCRIBE and UNSUBSCRIBE before rumqttd's codec decodes them.
//!
//! The codec trusts property lengths (a string may run on into what follows), takes NUL, reserved bits,
//! packet identifier 0 and trailing bytes for granted, refuses passwords that are not UTF-8, and cannot tell
//! an empty user name from none. So structure is checked here and the codec only builds the values;
//! credentials, which it would spoil, are cut off.

use crate::{
    application::Version,
    config::Config,
    fields::Fields,
    properties::{self, Section},
    reason::{Reason, Violation},
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

/// What the first fields of a CONNECT say; an error if it is not MQTT at all.
pub(crate) fn protocol(body: &[u8]) -> Result<Protocol, Violation> {
    let mut fields = Fields::new(body);
    let name = fields.string()?;
    let level = fields.byte()?;
    match (name, level) {
        ("MQTT", 4) => Ok(Protocol::Offered(Version::V311)),
        ("MQTT", 5) => Ok(Protocol::Offered(Version::V5)),
        ("MQTT", 6..0x80) => Ok(Protocol::Newer),
        ("MQTT" | "MQIsdp", _) => Ok(Protocol::Older),
        _ => Err(Violation::new(Reason::UnsupportedProtocolVersion, "not MQTT")),
    }
}

/// Where the connect flags stand: after the protocol's name ("MQTT" with its length) and level.
pub(crate) const CONNECT_FLAGS: usize = 7;
/// The connect flags that announce user name and password.
pub(crate) const CREDENTIALS: u8 = 0xC0;

/// The body of a CONNECT, taken apart as far as the codec cannot be trusted with it.
pub(crate) struct Connect<'a> {
    /// Up to the credentials.
    pub head: &'a [u8],
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
}

/// Checks the body of a CONNECT of this version (section 3.1).
pub(crate) fn connect<'a>(
    body: &'a [u8],
    version: Version,
    config: &Config,
) -> Result<Connect<'a>, Violation> {
    let mut fields = Fields::new(body);
    fields.string()?;
    fields.byte()?;
    let flags = fields.byte()?;
    fields.two_bytes()?;
    if flags & 1 != 0 {
        return Err(Violation::malformed("reserved connect flag"));
    }
    section(&mut fields, version, Section::Connect, config)?;
    fields.string()?;
    let will = flags & 0x04 != 0;
    if will {
        section(&mut fields, version, Section::Will, config)?;
        fields.string()?;
        fields.binary()?;
    }
    if flags & 0x18 == 0x18 || (!will && flags & 0x38 != 0) {
        return Err(Violation::malformed("impossible will flags"));
    }
    let head = &body[..body.len() - fields.rest().len()];
    let (mut user_name, mut password) = (None, None);
    if flags & 0x80 != 0 {
        user_name = Some(fields.string()?);
    }
    if flags & 0x40 != 0 {
        if flags & 0x80 == 0 && version == Version::V311 {
            return Err(Violation::malformed("password without user name")); // [MQTT-3.1.2-22]
        }
        password = Some(fields.binary()?);
    }
    end(&fields)?;
    Ok(Connect { head, user_name, password })
}

/// Checks the body of a SUBSCRIBE (section 3.8).
pub(crate) fn subscribe(body: &[u8], version: Version, config: &Config) -> Result<(), Violation> {
    let reserved = match version {
        Version::V311 => 0xFC,
        Version::V5 => 0xC0,
    };
    filters(body, version, Section::Subscribe, config, |fields| {
        let options = fields.byte()?;
        if options & reserved != 0 || options & 0x03 == 0x03 || options & 0x30 == 0x30 {
            return Err(Violation::malformed("impossible subscription options"));
        }
        Ok(())
    })
}

/// Checks the body of an UNSUBSCRIBE (section 3.10).
pub(crate) fn unsubscribe(body: &[u8], version: Version, config: &Config) -> Result<(), Violation> {
    filters(body, version, Section::Unsubscribe, config, |_| Ok(()))
}

fn filters(
    body: &[u8],
    version: Version,
    of: Section,
    config: &Config,
    options: impl Fn(&mut Fields<'_>) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let mut fields = Fields::new(body);
    fields.packet_id()?;
    section(&mut fields, version, of, config)?;
    let mut count = 0;
    while !fields.is_empty() {
        fields.string()?;
        options(&mut fields)?;
        count += 1;
        if count > config.max_filters_per_packet {
            return Err(Violation::new(Reason::QuotaExceeded, "too many filters in one packet"));
        }
    }
    if count == 0 {
        return Err(Violation::protocol("no filter")); // [MQTT-3.8.3-2], [MQTT-3.10.3-2]
    }
    Ok(())
}

fn section(fields: &mut Fields<'_>, version: Version, of: Section, config: &Config) -> Result<(), Violation> {
    match version {
        Version::V311 => Ok(()),
        Version::V5 => properties::read(fields, of, config.max_properties_size, |_| {}),
    }
}

fn end(fields: &Fields<'_>) -> Result<(), Violation> {
    if fields.is_empty() { Ok(()) } else { Err(Violation::malformed("bytes after the last field")) }
}
