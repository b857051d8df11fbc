//! Packets and tables, as a terminal shows them.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::address::Address;
use super::command::SHOWN_PACKETS;
use super::endpoint::{Endpoint, Role};
use super::keys::hex;
use super::network::{BUFFER, Event, Network, What};
use super::packet::{Authenticity, Fate, Packet, Segment, SessionId, Tampering};
use super::table::{broken, cut, paragraph, table};
use crate::clock::{Nanos, SECOND};

/// Hexadecimal digits of a payload that are shown, however wide the terminal is.
const MOST_DIGITS: usize = 128;

/// How a terminal shows things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Characters of a line.
    pub columns: usize,
    /// Whether it has colours.
    pub colour: bool,
    /// Packets are lines of JSON.
    pub json: bool,
}

/// Select Graphic Rendition (ECMA-48, section 8.3.117).
#[derive(Clone, Copy)]
enum Colour {
    None,
    Faint,
    Green,
    Yellow,
    Red,
}

/// A virtual time in seconds.
pub fn time(time: Nanos) -> String {
    format!("{}.{:06}", time / SECOND, time % SECOND / 1_000)
}

impl View {
    /// A paragraph in a colour, each line by itself.
    fn paragraph(self, colour: Colour, head: &str, words: &str) -> String {
        let text = paragraph(head, words, self.columns);
        let code = match colour {
            Colour::None => return text,
            _ if !self.colour => return text,
            Colour::Faint => "2",
            Colour::Green => "32",
            Colour::Yellow => "33",
            Colour::Red => "31",
        };
        text.lines().map(|line| format!("\x1b[{code}m{line}\x1b[0m\n")).collect()
    }

    /// A sentence.
    pub fn sentence(self, text: &str) -> String {
        self.paragraph(Colour::None, "", text)
    }

    /// An error, with what to do.
    pub fn error(self, why: &str) -> String {
        if self.json {
            return format!("{}\n", json!({ "error": why }));
        }
        self.paragraph(Colour::Red, "error: ", why)
    }

    /// What has happened.
    pub fn event(self, network: &Network, event: &Event) -> String {
        if self.json {
            return format!("{}\n", event_json(network, event));
        }
        let mut text = String::new();
        let head = format!("{}  ", time(event.at));
        let indentation = " ".repeat(head.len());
        let told = |serial, what: &str| {
            network
                .packet(serial)
                .map(|packet| format!("#{} {what}: {}", packet.number, header(network, packet)))
        };
        match event.what {
            What::Sent(serial) => {
                let line = told(serial, "sent").unwrap_or_default();
                text.push_str(&self.paragraph(Colour::Faint, &head, &line));
            }
            What::Delivered(serial) => {
                text.push_str(&self.paragraph(
                    Colour::None,
                    &head,
                    &told(serial, "arrived").unwrap_or_default(),
                ));
                if let Some(packet) = network.packet(serial) {
                    text.push_str(&self.inside(packet, &indentation));
                }
            }
            What::Waits(serial) => {
                text.push_str(&self.paragraph(
                    Colour::Yellow,
                    &head,
                    &told(serial, "waits").unwrap_or_default(),
                ));
            }
            What::Lost(serial) => {
                text.push_str(&self.paragraph(Colour::Red, &head, &told(serial, "lost").unwrap_or_default()));
            }
            What::Noted => {
                for note in &event.notes {
                    text.push_str(&self.paragraph(Colour::None, &head, note));
                }
                return text;
            }
        }
        for note in &event.notes {
            text.push_str(&self.paragraph(Colour::None, &format!("{indentation}- "), note));
        }
        text
    }

    /// A packet's payload, in clear and as it travels, and whether it is authentic.
    fn inside(self, packet: &Packet, indentation: &str) -> String {
        let label = |label: &str| format!("{indentation}{label:9}  ");
        let clear = String::from_utf8_lossy(&packet.clear);
        let mut text = broken(&label("clear"), clear.split_inclusive(','), "", self.columns);
        let bytes = packet.payload.bytes();
        let size = format!(" ({} bytes)", bytes.len());
        let room = self.columns.saturating_sub(label("").len() + size.len()).clamp(8, MOST_DIGITS);
        let travels = cut(&hex(&bytes), room);
        text.push_str(&self.paragraph(Colour::None, &label("travels"), &format!("{travels}{size}")));
        if let Some(tampered) = packet.tampered {
            let what = match tampered {
                Tampering::Bit => "the last bit of what travels is turned",
                Tampering::Sender => "the header names another sender",
                Tampering::Key => "another public key is in place of the one that was sent",
                Tampering::Replay => "somebody has kept a copy, and sends it once more",
            };
            text.push_str(&self.paragraph(Colour::Yellow, &label("tampered"), what));
        }
        let (colour, authentic) = match packet.authenticity {
            Authenticity::Open => (Colour::None, "not told yet: it has not arrived".to_owned()),
            Authenticity::InClear => {
                (Colour::Yellow, "cannot be told: it is not sealed, anybody can have sent it".to_owned())
            }
            Authenticity::Holds => (Colour::Green, "yes".to_owned()),
            Authenticity::Refused(why) => (Colour::Red, format!("NO, refused: {why}")),
        };
        text.push_str(&self.paragraph(colour, &label("authentic"), &authentic));
        text
    }

    /// One packet in full.
    pub fn packet(self, network: &Network, packet: &Packet) -> String {
        let head = format!("{}  ", time(packet.sent));
        let line = format!("#{} sent: {}; {}", packet.number, header(network, packet), fate(packet));
        self.paragraph(Colour::None, &head, &line) + &self.inside(packet, &" ".repeat(head.len()))
    }

    /// Packets of a session, or of all, the last ones.
    pub fn packets(self, network: &Network, of: Option<SessionId>) -> String {
        let concerns = |packet: &Packet| {
            of.is_none() || Some(packet.sender) == of || (packet.receiver.is_some() && packet.receiver == of)
        };
        let all: Vec<&Packet> =
            network.packets().map(|(_, packet)| packet).filter(|packet| concerns(packet)).collect();
        let mut rows = vec![
            ["packet", "sent", "arrived", "type", "from", "to", "bytes", "authentic"]
                .map(str::to_owned)
                .to_vec(),
        ];
        for packet in &all[all.len().saturating_sub(SHOWN_PACKETS)..] {
            let authentic = match packet.authenticity {
                Authenticity::Open => "",
                Authenticity::InClear => "in clear",
                Authenticity::Holds => "yes",
                Authenticity::Refused(_) => "NO",
            };
            rows.push(vec![
                format!("#{}", packet.number),
                time(packet.sent),
                match packet.fate {
                    Fate::OnTheWay(_) => "on the way".to_owned(),
                    Fate::Waiting => "waits".to_owned(),
                    Fate::Delivered(at) => time(at),
                    Fate::Lost(_) => "lost".to_owned(),
                },
                packet.kind.name().to_owned(),
                packet.from.to_string(),
                packet.to.to_string(),
                packet.payload.bytes().len().to_string(),
                authentic.to_owned(),
            ]);
        }
        let mut text = table(&rows, self.columns);
        if all.len() > SHOWN_PACKETS {
            text.push_str(&format!("(the last {SHOWN_PACKETS} of {})\n", all.len()));
        }
        text
    }

    /// Connections of a session.
    pub fn connections(self, session: &Endpoint) -> String {
        if session.connections.is_empty() {
            return format!("{} has no connections yet\n", session.name);
        }
        let mut rows = vec![
            ["address", "status", "since", "key", "last ping", "description"].map(str::to_owned).to_vec(),
        ];
        rows.extend(session.connections.iter().map(|(address, connection)| {
            vec![
                address.to_string(),
                connection.code.to_string(),
                time(connection.since),
                connection.key.fingerprint(),
                connection.last_ping.map_or_else(|| "-".to_owned(), time),
                connection.description.clone(),
            ]
        }));
        table(&rows, self.columns)
    }

    /// Subscriptions of a session: its own, or those of its clients.
    pub fn subscriptions(self, session: &Endpoint) -> String {
        let mut rows =
            vec![["topic", "address", "status", "since", "description"].map(str::to_owned).to_vec()];
        for (address, connection) in &session.connections {
            let address = match session.role.serves() {
                true => Some(*address),
                false => session.address_towards(*address),
            };
            rows.extend(connection.subscriptions.iter().map(|(topic, subscription)| {
                vec![
                    topic.clone(),
                    address.map_or_else(String::new, |address| address.to_string()),
                    subscription.code.to_string(),
                    time(subscription.since),
                    subscription.description.clone(),
                ]
            }));
        }
        if rows.len() == 1 {
            return format!("{} has no subscriptions yet\n", session.name);
        }
        rows[1..].sort_by(|one, other| (&one[0], &one[1]).cmp(&(&other[0], &other[1])));
        table(&rows, self.columns)
    }

    /// What a session knows of addresses, and what waits there for others.
    pub fn routes(self, network: &Network, id: SessionId, session: &Endpoint) -> String {
        let mut text = String::new();
        if matches!(session.role, Role::Router | Role::Master) {
            let mut rows =
                vec![["global address", "network", "local address", "since"].map(str::to_owned).to_vec()];
            rows.extend(session.routes.iter().map(|(global, route)| {
                vec![global.to_string(), route.network.clone(), route.local.to_string(), time(route.since)]
            }));
            if rows.len() == 1 {
                text.push_str(&format!("{} has learned no addresses yet\n", session.name));
            } else {
                text.push_str(&table(&rows, self.columns));
            }
            text.push('\n');
        }
        let mut rows = vec![["to", "address", "", "buffer", "lost"].map(str::to_owned).to_vec()];
        for address in session.connections.keys() {
            let holder =
                network.segment_of(id, *address).and_then(|segment| network.holder(segment, *address));
            let (waiting, lost) = holder.map_or((0, 0), |holder| network.buffered(id, holder));
            let name =
                holder.and_then(|holder| network.session(holder)).map_or("(left)", |holder| &holder.name);
            rows.push(vec![
                name.to_owned(),
                address.to_string(),
                address.scope().to_owned(),
                format!("{waiting} of {BUFFER}"),
                lost.to_string(),
            ]);
        }
        if rows.len() == 1 {
            text.push_str(&format!("{} is connected to nobody yet\n", session.name));
        } else {
            text.push_str(&table(&rows, self.columns));
        }
        text
    }

    /// All sessions; those of this terminal are marked.
    pub fn sessions(
        self,
        network: &Network,
        own: impl Fn(SessionId) -> bool,
        current: Option<SessionId>,
    ) -> String {
        let heads = ["", "session", "kind", "network", "local", "global", "listens", "public key"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        for (id, session) in network.sessions() {
            let mark = if Some(id) == current {
                "*"
            } else if own(id) {
                ""
            } else {
                "other"
            };
            let or_none =
                |address: Option<Address>| address.map_or_else(|| "-".to_owned(), |of| of.to_string());
            let local = session.local.as_ref();
            rows.push(vec![
                mark.to_owned(),
                session.name.clone(),
                session.role.to_string(),
                local.map_or_else(|| "-".to_owned(), |local| local.name.clone()),
                or_none(local.map(|local| local.address)),
                or_none(session.global),
                if session.listens { "yes" } else { "no" }.to_owned(),
                if session.role.serves() { session.public_fingerprint() } else { "-".to_owned() },
            ]);
        }
        if rows.len() == 1 {
            return "there are no sessions yet: `open broker b1` opens one\n".to_owned();
        }
        table(&rows, self.columns)
    }
}

/// Type, sender, receiver, and what it travels through.
fn header(network: &Network, packet: &Packet) -> String {
    let [sender, receiver] = packet.names.each_ref().map(|name| name.as_deref().unwrap_or("nobody"));
    let sender = match packet.tampered {
        Some(Tampering::Sender) => "(forged)",
        _ => sender,
    };
    let scope = match packet.segment {
        Segment::Local(_) => format!("local, {}", network.segment_name(packet.segment)),
        Segment::Global => "global".to_owned(),
    };
    format!("{}, {} {sender} -> {} {receiver} ({scope})", packet.kind, packet.from, packet.to)
}

fn fate(packet: &Packet) -> String {
    match packet.fate {
        Fate::OnTheWay(due) => format!("arrives {}", time(due)),
        Fate::Waiting => "waits".to_owned(),
        Fate::Delivered(at) => format!("arrived {}", time(at)),
        Fate::Lost(why) => format!("lost: {why}"),
    }
}

fn event_json(network: &Network, event: &Event) -> serde_json::Value {
    let (name, serial) = match event.what {
        What::Sent(serial) => ("sent", Some(serial)),
        What::Delivered(serial) => ("arrived", Some(serial)),
        What::Waits(serial) => ("waits", Some(serial)),
        What::Lost(serial) => ("lost", Some(serial)),
        What::Noted => ("noted", None),
    };
    let packet = serial.and_then(|serial| network.packet(serial)).map(|packet| {
        let [sender, receiver] = packet.names.each_ref();
        let (authentic, refused) = match packet.authenticity {
            Authenticity::Holds => (Some(true), None),
            Authenticity::Refused(why) => (Some(false), Some(why)),
            Authenticity::Open | Authenticity::InClear => (None, None),
        };
        json!({
            "number": packet.number,
            "type": packet.kind.name(),
            "mqtt": packet.kind.mqtt(),
            "from": { "address": packet.from, "session": sender },
            "to": { "address": packet.to, "session": receiver },
            "scope": packet.to.scope(),
            "network": network.segment_name(packet.segment),
            "clear": String::from_utf8_lossy(&packet.clear),
            "travels": hex(&packet.payload.bytes()),
            "tampered": packet.tampered.is_some(),
            "authentic": authentic,
            "refused": refused,
        })
    });
    let at = event.at as f64 / SECOND as f64;
    json!({ "time_s": at, "event": name, "packet": packet, "notes": event.notes })
}
