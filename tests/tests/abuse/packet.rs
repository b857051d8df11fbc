//! Packets of MQTT 5 as bytes: what a library would refuse to build, and as little reading as an abuser needs.

/// First byte of each packet, flags included (section 2.1).
pub const CONNACK: u8 = 0x20;
pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const SUBACK: u8 = 0x90;
pub const PINGRESP: u8 = 0xD0;
const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const PINGREQ: u8 = 0xC0;

/// Properties (section 2.2.2.2).
const SESSION_EXPIRY: u8 = 0x11;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// Reason codes from here on are refusals (section 2.4).
pub const REFUSED: u8 = 0x80;

/// CONNECT, as a builder.
#[derive(Clone, Default)]
pub struct Connect {
    id: String,
    login: Option<(String, String)>,
    properties: Vec<u8>,
    will: Vec<u8>,
    kept: bool,
}

impl Connect {
    /// Without a name, keep-alive 0, and nothing that outlives the connection.
    pub fn new(id: &str) -> Connect {
        Connect { id: id.to_owned(), ..Connect::default() }
    }

    pub fn login(mut self, user: &str, password: &str) -> Connect {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// The session is to outlive the connection for as long as the broker allows, and one that is there is taken
    /// over.
    pub fn kept(mut self) -> Connect {
        self.properties.push(SESSION_EXPIRY);
        self.properties.extend((u32::MAX - 1).to_be_bytes());
        self.kept = true;
        self
    }

    pub fn max_packet_size(mut self, bytes: u32) -> Connect {
        self.properties.push(MAXIMUM_PACKET_SIZE);
        self.properties.extend(bytes.to_be_bytes());
        self
    }

    /// A will with this many empty user properties.
    pub fn will(mut self, topic: &str, user_properties: usize) -> Connect {
        self.will = section(&empty_user_properties(user_properties));
        self.will.extend(string(topic.as_bytes()));
        self.will.extend(string(b"gone"));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (clean, will, login) = (!self.kept, !self.will.is_empty(), self.login.is_some());
        let flags = u8::from(clean) << 1 | u8::from(will) << 2 | u8::from(login) << 6 | u8::from(login) << 7;
        let mut body = string(b"MQTT");
        body.extend([5, flags, 0, 0]);
        body.extend(section(&self.properties));
        body.extend(string(self.id.as_bytes()));
        body.extend(&self.will);
        if let Some((user, password)) = &self.login {
            body.extend(string(user.as_bytes()));
            body.extend(string(password.as_bytes()));
        }
        packet(CONNECT, &body)
    }
}

/// PUBLISH, as a builder.
#[derive(Clone)]
pub struct Publish {
    topic: String,
    payload: Vec<u8>,
    properties: Vec<u8>,
    /// The quality of service with the packet identifier that it needs.
    qos: Option<(u8, u16)>,
    retain: bool,
}

impl Publish {
    /// At QoS 0.
    pub fn new(topic: &str, payload: impl Into<Vec<u8>>) -> Publish {
        Publish {
            topic: topic.to_owned(),
            payload: payload.into(),
            properties: Vec::new(),
            qos: None,
            retain: false,
        }
    }

    pub fn qos(mut self, qos: u8, packet_id: u16) -> Publish {
        self.qos = Some((qos, packet_id));
        self
    }

    pub fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }

    pub fn correlation(mut self, data: &[u8]) -> Publish {
        self.properties.push(CORRELATION_DATA);
        self.properties.extend(string(data));
        self
    }

    pub fn response_topic(mut self, topic: &str) -> Publish {
        self.properties.push(RESPONSE_TOPIC);
        self.properties.extend(string(topic.as_bytes()));
        self
    }

    pub fn empty_user_properties(mut self, count: usize) -> Publish {
        self.properties.extend(empty_user_properties(count));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = string(self.topic.as_bytes());
        let qos = self.qos.map_or(0, |(qos, id)| {
            body.extend(id.to_be_bytes());
            qos
        });
        body.extend(section(&self.properties));
        body.extend(&self.payload);
        packet(PUBLISH | qos << 1 | u8::from(self.retain), &body)
    }
}

/// SUBSCRIBE at QoS 0, or at QoS 1.
pub fn subscribe(packet_id: u16, qos: u8, filters: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.push(0);
    for filter in filters {
        body.extend(string(filter.as_ref().as_bytes()));
        body.push(qos);
    }
    packet(SUBSCRIBE, &body)
}

pub fn puback(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [PUBACK, 2, high, low]
}

pub fn ping() -> [u8; 2] {
    [PINGREQ, 0]
}

/// CONNECT of MQTT 3.1.1 from a client that lets the broker name it.
pub fn connect_unnamed_v311(user: &str, password: &str) -> Vec<u8> {
    let mut body = string(b"MQTT");
    body.extend([4, 0b1100_0010, 0, 0]);
    for text in ["", user, password] {
        body.extend(string(text.as_bytes()));
    }
    packet(CONNECT, &body)
}

/// SUBSCRIBE of MQTT 3.1.1 to one filter at QoS 1.
pub fn subscribe_v311(packet_id: u16, filter: &str) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.extend(string(filter.as_bytes()));
    body.push(1);
    packet(SUBSCRIBE, &body)
}

/// PUBLISH of MQTT 3.1.1 at QoS 0.
pub fn publish_v311(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(PUBLISH, &[&string(topic.as_bytes()), payload].concat())
}

fn empty_user_properties(count: usize) -> Vec<u8> {
    [USER_PROPERTY, 0, 0, 0, 0].repeat(count)
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    packet.extend(variable(body.len()));
    packet.extend(body);
    packet
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text].concat()
}

/// A property section.
fn section(properties: &[u8]) -> Vec<u8> {
    [&variable(properties.len())[..], properties].concat()
}

/// Seven bits a byte, the low ones first; the eighth says that more follow (section 1.5.5).
fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The first whole packet of `received`: its first byte, its body, and its length.
pub fn first(received: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (length, start) = read_variable(received.get(1..)?)?;
    let start = 1 + start;
    Some((received[0], received.get(start..start + length)?, start + length))
}

fn read_variable(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// What an answer says, as far as whoever asked with Correlation Data has to know.
pub struct Answer<'a> {
    pub packet_id: Option<u16>,
    pub correlation: Option<&'a [u8]>,
    /// The user property of this name.
    pub status: Option<&'a [u8]>,
    pub payload: &'a [u8],
}

impl<'a> Answer<'a> {
    /// Reads a PUBLISH; `None` if it is none, or damaged.
    pub fn read(first: u8, body: &'a [u8]) -> Option<Answer<'a>> {
        if first & 0xF0 != PUBLISH {
            return None;
        }
        let mut rest = body;
        field(&mut rest)?;
        let packet_id = if first & 0b110 == 0 {
            None
        } else {
            Some(u16::from_be_bytes(take(&mut rest, 2)?.try_into().ok()?))
        };
        let (length, start) = read_variable(rest)?;
        let mut properties = rest.get(start..start + length)?;
        let mut answer =
            Answer { packet_id, correlation: None, status: None, payload: rest.get(start + length..)? };
        while let [id, rest @ ..] = properties {
            properties = rest;
            match *id {
                CORRELATION_DATA => answer.correlation = Some(field(&mut properties)?),
                USER_PROPERTY => {
                    let (name, value) = (field(&mut properties)?, field(&mut properties)?);
                    if name == b"status" {
                        answer.status = Some(value);
                    }
                }
                // Content Type and Response Topic, Message Expiry, Payload Format: nothing to know.
                0x03 | RESPONSE_TOPIC => drop(field(&mut properties)?),
                0x02 => drop(take(&mut properties, 4)?),
                0x01 => drop(take(&mut properties, 1)?),
                _ => return None,
            }
        }
        Some(answer)
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (field, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(field)
}

/// With its length before it.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u16::from_be_bytes(take(rest, 2)?.try_into().ok()?);
    take(rest, length.into())
}
