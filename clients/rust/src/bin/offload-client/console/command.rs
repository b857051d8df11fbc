//! The console's language: one command a line, in any letter case.

use offload_client::{DEFAULT_PORT, MqttVersion};
use offload_mqtt::QoS;
use offload_protocol::topic;

/// QoS where none is asked for: the lowest that is acknowledged, so that every command shows what the broker says.
const DEFAULT_QOS: QoS = QoS::AtLeastOnce;

/// Characters of a word that are repeated when it is not understood.
const MAX_QUOTED: usize = 32;

/// A line, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// What is missing is as the command line's connection flags say.
    Connect {
        address: Option<(String, u16)>,
        version: Option<MqttVersion>,
    },
    Publish {
        topic: String,
        value: String,
        qos: QoS,
        retain: bool,
    },
    Subscribe {
        filter: String,
        qos: QoS,
    },
    Unsubscribe {
        filter: String,
    },
    Disconnect,
    Toggle,
    Help,
    Exit,
}

/// How a command is written, for `help` and for completion.
pub struct Manual {
    pub name: &'static str,
    /// The habit of simulators; empty where there is none.
    short: &'static str,
    operands: &'static str,
    what: &'static str,
}

const fn manual(
    name: &'static str,
    short: &'static str,
    operands: &'static str,
    what: &'static str,
) -> Manual {
    Manual { name, short, operands, what }
}

/// All commands, in the order in which they are learned.
pub const MANUALS: [Manual; 8] = [
    manual(
        "CONNECT",
        "conn",
        "[HOST[:PORT]] [-V 5|3.1.1]",
        "connect; without HOST as before, without -V as the command line says",
    ),
    manual("PUBLISH", "pub", "[-q 0|1|2] [-r] TOPIC [VALUE]", "publish the rest of the line; -r retains it"),
    manual("SUBSCRIBE", "sub", "[-q 0|1|2] TOPIC", "show messages on this topic; + and # are wildcards"),
    manual("UNSUBSCRIBE", "unsub", "TOPIC", "end a subscription"),
    manual("TOGGLE", "tgll", "", "pause and resume the display of incoming messages"),
    manual("DISCONNECT", "disc", "", "end the connection"),
    manual("HELP", "", "", "this list"),
    manual("EXIT", "", "", "disconnect and leave, as ctrl-d does"),
];

/// The list of commands, for people with a terminal of 80 columns.
pub fn help() -> Vec<String> {
    let synopsis = |manual: &Manual| format!("{} {}", manual.name, manual.operands);
    let width = MANUALS.iter().map(|manual| synopsis(manual).len()).max().unwrap_or_default();
    let entry = |manual: &Manual| {
        let names = format!("{:width$}  {}", synopsis(manual), manual.short);
        [names.trim_end().to_owned(), format!("    {}", manual.what)]
    };
    let notes =
        ["QoS (-q) is 1 unless told otherwise. A topic with spaces is quoted.", "# starts a comment."];
    MANUALS.iter().flat_map(entry).chain(notes.map(str::to_owned)).collect()
}

/// Reads a line. `None` for one that is empty or a comment; an error says what was expected.
pub fn parse(line: &str) -> Result<Option<Command>, String> {
    let mut words = Words { rest: line.trim_start() };
    let name = match words.next()? {
        None => return Ok(None),
        Some(comment) if comment.starts_with('#') => return Ok(None),
        Some(name) => name.to_ascii_lowercase(),
    };
    let command = match name.as_str() {
        "connect" | "conn" => return connect(words).map(Some),
        "publish" | "publ" | "pub" => return publish(words).map(Some),
        "subscribe" | "subs" | "sub" => return subscribe(words).map(Some),
        "unsubscribe" | "unsub" => return unsubscribe(words).map(Some),
        "disconnect" | "disc" => Command::Disconnect,
        "toggle" | "tgll" => Command::Toggle,
        "help" | "?" => Command::Help,
        "exit" => Command::Exit,
        _ => return Err(format!("no command {}: `help` lists them", quoted(&name))),
    };
    words.end()?;
    Ok(Some(command))
}

fn connect(mut words: Words) -> Result<Command, String> {
    let (mut host_and_port, mut version) = (None, None);
    while let Some(word) = words.next()? {
        match word {
            "-V" | "--mqtt-version" => {
                version = match words.next()? {
                    Some("5" | "mqttv5") => Some(MqttVersion::V5),
                    Some("3.1.1" | "311" | "mqttv311") => Some(MqttVersion::V311),
                    _ => return Err(format!("{word}: expected 5 or 3.1.1")),
                }
            }
            option if option.starts_with('-') => return Err(unknown(option)),
            word if host_and_port.is_none() => host_and_port = Some(address(word)?),
            word => return Err(surplus(word)),
        }
    }
    Ok(Command::Connect { address: host_and_port, version })
}

fn address(text: &str) -> Result<(String, u16), String> {
    let expected = || "expected HOST or HOST:PORT; user and password go on the command line".to_owned();
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without a port.
        Some((_, after)) if after.ends_with(']') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || host.contains(['/', '@']) || host.contains(':') && !bracketed {
        return Err(expected());
    }
    let port = match port {
        None => DEFAULT_PORT,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(expected)?,
    };
    Ok((host.to_owned(), port))
}

fn publish(mut words: Words) -> Result<Command, String> {
    let (mut qos, mut retain) = (DEFAULT_QOS, false);
    let name = loop {
        match words.next()? {
            Some("-q" | "--qos") => qos = words.qos()?,
            Some("-r" | "--retain") => retain = true,
            Some("--") => break words.next()?,
            Some(option) if option.starts_with('-') => return Err(unknown(option)),
            operand => break operand,
        }
    };
    match name {
        Some(name) if topic::is_valid_name(name) => {
            Ok(Command::Publish { topic: name.to_owned(), value: words.rest.to_owned(), qos, retain })
        }
        _ => Err("expected a topic without + and #, then the value".to_owned()),
    }
}

fn subscribe(mut words: Words) -> Result<Command, String> {
    let (mut filter, mut qos) = (None, DEFAULT_QOS);
    while let Some(word) = words.next()? {
        match word {
            "-q" | "--qos" => qos = words.qos()?,
            option if option.starts_with('-') => return Err(unknown(option)),
            word if filter.is_none() => filter = Some(valid_filter(word)?),
            word => return Err(surplus(word)),
        }
    }
    let filter = filter.map_or_else(|| valid_filter(""), Ok)?;
    Ok(Command::Subscribe { filter, qos })
}

fn unsubscribe(mut words: Words) -> Result<Command, String> {
    let filter = valid_filter(words.next()?.unwrap_or_default())?;
    words.end()?;
    Ok(Command::Unsubscribe { filter })
}

fn valid_filter(text: &str) -> Result<String, String> {
    if topic::is_valid_filter(text) {
        Ok(text.to_owned())
    } else {
        Err("expected a topic, with + and # only as whole levels, # as the last".to_owned())
    }
}

fn unknown(option: &str) -> String {
    format!("no option {} here: `help` lists them", quoted(option))
}

fn surplus(word: &str) -> String {
    format!("did not expect {}; a topic with spaces is quoted", quoted(word))
}

/// Bounded, for anything may have been typed or piped here.
fn quoted(word: &str) -> String {
    format!("{:?}", word.chars().take(MAX_QUOTED).collect::<String>())
}

/// What is left of a line.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    /// The next word, or what stands between a pair of double quotes.
    fn next(&mut self) -> Result<Option<&'a str>, String> {
        let (word, rest) = match self.rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a quote is not closed")?,
            None if self.rest.is_empty() => return Ok(None),
            None => self.rest.split_at(self.rest.find([' ', '\t']).unwrap_or(self.rest.len())),
        };
        self.rest = rest.trim_start_matches([' ', '\t']);
        Ok(Some(word))
    }

    fn qos(&mut self) -> Result<QoS, String> {
        match self.next()? {
            Some("0") => Ok(QoS::AtMostOnce),
            Some("1") => Ok(QoS::AtLeastOnce),
            Some("2") => Ok(QoS::ExactlyOnce),
            _ => Err("QoS: expected 0, 1 or 2".to_owned()),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.next()?.map_or(Ok(()), |word| Err(surplus(word)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}")).expect(line)
    }

    #[test]
    fn connect_takes_an_address_and_a_version() {
        let connect = |address: Option<(&str, u16)>, version| Command::Connect {
            address: address.map(|(host, port)| (host.to_owned(), port)),
            version,
        };
        for (line, expected) in [
            ("CONNECT", connect(None, None)),
            ("conn box", connect(Some(("box", 1883)), None)),
            ("Connect box:1884", connect(Some(("box", 1884)), None)),
            ("conn [::1] -V 5", connect(Some(("[::1]", 1883)), Some(MqttVersion::V5))),
            ("conn -V 3.1.1 [::1]:7", connect(Some(("[::1]", 7)), Some(MqttVersion::V311))),
            ("conn --mqtt-version mqttv311", connect(None, Some(MqttVersion::V311))),
        ] {
            assert_eq!(command(line), expected, "{line}");
        }
    }

    #[test]
    fn publish_takes_the_rest_of_the_line_as_it_stands() {
        let publish = |topic: &str, value: &str, qos, retain| Command::Publish {
            topic: topic.to_owned(),
            value: value.to_owned(),
            qos,
            retain,
        };
        for (line, expected) in [
            ("pub a 5", publish("a", "5", QoS::AtLeastOnce, false)),
            ("sub a", Command::Subscribe { filter: "a".into(), qos: QoS::AtLeastOnce }),
            ("unsub a", Command::Unsubscribe { filter: "a".into() }),
            ("publ a/b 5 7", publish("a/b", "5 7", QoS::AtLeastOnce, false)),
            ("  PuBlIsH\t-q 0  a \t { \"x\": 1 } ", publish("a", "{ \"x\": 1 } ", QoS::AtMostOnce, false)),
            ("publ --qos 2 --retain a -r", publish("a", "-r", QoS::ExactlyOnce, true)),
            ("publ -r a", publish("a", "", QoS::AtLeastOnce, true)),
            ("publ \"a b\" \"c\"", publish("a b", "\"c\"", QoS::AtLeastOnce, false)),
            ("publ -- -a b", publish("-a", "b", QoS::AtLeastOnce, false)),
        ] {
            assert_eq!(command(line), expected, "{line}");
        }
    }

    #[test]
    fn subscriptions_take_a_filter() {
        let subscribe = |filter: &str, qos| Command::Subscribe { filter: filter.to_owned(), qos };
        assert_eq!(command("SUBS a/+/#"), subscribe("a/+/#", QoS::AtLeastOnce));
        assert_eq!(command("subscribe a -q 2"), subscribe("a", QoS::ExactlyOnce));
        assert_eq!(command("subs --qos 0 \"a b\""), subscribe("a b", QoS::AtMostOnce));
        assert_eq!(command("UnSubscribe a/#"), Command::Unsubscribe { filter: "a/#".to_owned() });
    }

    #[test]
    fn the_rest_takes_nothing() {
        for (lines, expected) in [
            (["DISCONNECT", "disc"], Command::Disconnect),
            (["toggle", "TgLl"], Command::Toggle),
            (["HELP", "?"], Command::Help),
            (["exit", " EXIT "], Command::Exit),
        ] {
            for line in lines {
                assert_eq!(command(line), expected, "{line}");
            }
        }
    }

    #[test]
    fn nothing_and_comments_are_no_commands() {
        for line in ["", " \t", "# conn", "#", " #publ a b"] {
            assert_eq!(parse(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, expected) in [
            ("fetch", "no command \"fetch\": `help` lists them"),
            ("conn mqtt://a:b@c", "expected HOST or HOST:PORT"),
            ("conn ::1", "expected HOST or HOST:PORT"),
            ("conn :1", "expected HOST or HOST:PORT"),
            ("conn a:0", "expected HOST or HOST:PORT"),
            ("conn a:65536", "expected HOST or HOST:PORT"),
            ("conn a b", "did not expect \"b\""),
            ("conn -V 4", "-V: expected 5 or 3.1.1"),
            ("conn -P x", "no option \"-P\" here"),
            ("publ", "expected a topic without + and #"),
            ("publ a/# x", "expected a topic without + and #"),
            ("publ -q 3 a", "QoS: expected 0, 1 or 2"),
            ("publ -q", "QoS: expected 0, 1 or 2"),
            ("publ -x a", "no option \"-x\" here"),
            ("publ \"a", "a quote is not closed"),
            ("subs", "expected a topic, with"),
            ("subs a#", "expected a topic, with"),
            ("subs a b", "did not expect \"b\"; a topic with spaces is quoted"),
            ("subs -r a", "no option \"-r\" here"),
            ("unsubscribe", "expected a topic, with"),
            ("unsubscribe a b", "did not expect \"b\""),
            ("exit now", "did not expect \"now\""),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.starts_with(expected), "{line}: {error}");
        }
        assert!(parse(&"x".repeat(1 << 20)).unwrap_err().len() < 100);
    }

    #[test]
    fn help_names_what_is_understood() {
        for manual in MANUALS {
            for name in [manual.name, manual.short] {
                let unknown = parse(name).err().filter(|error| error.starts_with("no command"));
                assert_eq!(unknown, None, "{name}");
            }
            assert!(help().iter().any(|line| line.starts_with(manual.name)));
        }
        assert!(help().iter().all(|line| line.len() < 80));
    }
}
