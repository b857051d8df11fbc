//! Commands, as they are typed.

use super::endpoint::Role;
use super::packet::Tampering;
use crate::clock::{Nanos, SECOND};
use crate::scenario::reader::nearest;
use crate::scenario::units::Time;

/// Bytes of a line.
pub const MAX_LINE: usize = 2_048;

/// Letters of the name of a session or a network, which tables have to show.
const MAX_NAME: usize = 12;

/// Bytes of a topic, and of a description.
const MAX_TEXT: usize = 128;

/// The keep-alive of `conn` without one.
const KEEP_ALIVE: Nanos = 60 * SECOND;

/// The local network of `join` without one.
const NETWORK: &str = "lan";

/// Packets that `packets` shows without a number.
pub const SHOWN_PACKETS: usize = 20;

/// A line: what is to be done, and by which session, where it is not the current one.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Of `NAME: COMMAND`.
    pub session: Option<String>,
    /// What is to be done.
    pub command: Command,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "`COMMANDS` says what each does")]
pub enum Command {
    Open { role: Role, name: String },
    Use { name: String },
    Sessions,
    Close { name: String },
    Join { network: String },
    Leave,
    Connect { keep_alive: Nanos, description: String },
    Disconnect,
    Subscribe { topic: String, description: String },
    Unsubscribe { topic: String },
    Publish { topic: String, value: String },
    Ping,
    ToggleListening,
    Step { packets: u64 },
    Run { time: Option<Nanos> },
    Connections,
    Subscriptions,
    Routes,
    Packets { which: Which },
    Tamper { number: Option<u64>, how: Tampering },
    Help { topic: Option<String> },
    Exit,
}

/// Which packets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that the session has sent or gets.
    Own,
    /// Those of all sessions.
    All,
    /// One, in full.
    Number(u64),
}

/// Each command with its arguments and what it does, in the order in which a class needs them.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    ("open", "KIND NAME", "a new session: broker, client, router or master; it is the current one"),
    ("use", "NAME", "another session is the current one; `NAME: COMMAND` is for one command"),
    ("join", "[NETWORK]", "gets an address in a local network (lan); a broker makes the network"),
    ("conn", "[TIME] [WORDS]", "asks for a connection; TIME is its keep-alive (60s), WORDS describe it"),
    ("subs", "TOPIC [WORDS]", "subscribes; + stands for one level of a topic, # for all that follow"),
    ("unsubs", "TOPIC", "subscribes no more"),
    ("publ", "TOPIC VALUE", "publishes a topic's new value"),
    ("ping", "", "says that it is still there"),
    ("tgll", "", "stops listening, and listens again; meanwhile its packets wait"),
    ("disc", "", "ends its connection"),
    ("leave", "", "leaves its network"),
    ("step", "[N]", "delivers the next packet, or the next N"),
    ("run", "[TIME]", "delivers packets until none is left, or lets TIME go by (10s)"),
    ("connections", "", "address, status code, since when, key, last ping, description"),
    ("subscriptions", "", "topic, address, status code, since when, description"),
    ("routes", "", "local and global addresses, and what waits for whom"),
    ("packets", "[N|all]", "the session's last packets, those of all, or one in full"),
    ("tamper", "[N] [HOW]", "alters the next packet, or #N, on its way: bit, sender, replay or key"),
    ("sessions", "", "all sessions, with addresses and fingerprints of public keys"),
    ("close", "NAME", "ends a session"),
    ("help", "[TOPIC]", "this, a command, or: packets, codes, cipher, limits"),
    ("exit", "", "ends this terminal and its sessions, as ctrl-d does"),
];

/// What `tamper` can do, as it is typed.
const TAMPERINGS: [(&str, Tampering); 4] = [
    ("bit", Tampering::Bit),
    ("sender", Tampering::Sender),
    ("replay", Tampering::Replay),
    ("key", Tampering::Key),
];

impl Line {
    /// Reads a line; `None` where nothing is in it, or a comment (`#`).
    ///
    /// # Errors
    /// What is wrong with it, and what is accepted.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let spaced = text.replace('\t', " ");
        let mut text = spaced.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(None);
        }
        if text.len() > MAX_LINE {
            return Err(format!("a line has at most {MAX_LINE} bytes"));
        }
        // Other terminals show what is typed here, and are to do nothing else with it.
        if text.chars().any(char::is_control) {
            return Err("a line has no control characters: type it again".to_owned());
        }
        let mut session = None;
        if let Some((name, rest)) = text.split_once(':')
            && is_name(name)
        {
            session = Some(name.to_owned());
            text = rest.trim_start();
        }
        let (verb, rest) = first_word(text);
        let command = Command::parse(verb, rest)?;
        Ok(Some(Self { session, command }))
    }
}

impl Command {
    fn parse(verb: &str, rest: &str) -> Result<Self, String> {
        let Some((verb, arguments, _)) = COMMANDS.iter().find(|(name, ..)| *name == verb) else {
            let names: Vec<&str> = COMMANDS.iter().map(|(name, ..)| *name).collect();
            return Err(match nearest(verb, &names) {
                Some(meant) => format!("there is no command {verb:?}; did you mean `{meant}`?"),
                None => format!("there is no command {verb:?}; `help` lists them"),
            });
        };
        let usage = || format!("expected `{}`", [*verb, *arguments].join(" ").trim_end());
        if arguments.is_empty() && !rest.is_empty() {
            return Err(format!("{}: {verb} takes nothing more", usage()));
        }
        let (first, words) = first_word(rest);
        Ok(match *verb {
            "open" => {
                let role = Role::ALL.into_iter().find(|role| role.name() == first);
                let role =
                    role.ok_or_else(|| format!("{}; KIND is broker, client, router or master", usage()))?;
                Self::Open { role, name: name(words).map_err(|why| format!("{}: {why}", usage()))? }
            }
            "use" => Self::Use { name: name(rest).map_err(|why| format!("{}: {why}", usage()))? },
            "close" => Self::Close { name: name(rest).map_err(|why| format!("{}: {why}", usage()))? },
            "join" if rest.is_empty() => Self::Join { network: NETWORK.to_owned() },
            "join" => Self::Join { network: name(rest).map_err(|why| format!("{}: {why}", usage()))? },
            "conn" => {
                let (keep_alive, description) = match Time::parse(first) {
                    Ok(Time(time)) => (time, words),
                    Err(why) if first.starts_with(|c: char| c.is_ascii_digit()) => {
                        return Err(format!("{}: {why}; TIME is {}", usage(), Time::FORM));
                    }
                    Err(_) => (KEEP_ALIVE, rest),
                };
                Self::Connect { keep_alive, description: described(description)? }
            }
            "subs" => Self::Subscribe { topic: topic(first, usage)?, description: described(words)? },
            "unsubs" => Self::Unsubscribe { topic: topic(rest, usage)? },
            "publ" if words.is_empty() => return Err(format!("{}: there is no value", usage())),
            "publ" => Self::Publish { topic: topic(first, usage)?, value: words.to_owned() },
            "step" if rest.is_empty() => Self::Step { packets: 1 },
            "step" => {
                Self::Step { packets: number(rest).ok_or_else(|| format!("{}: N is a number", usage()))? }
            }
            "run" if rest.is_empty() => Self::Run { time: None },
            "run" => match Time::parse(rest) {
                Ok(Time(time)) => Self::Run { time: Some(time) },
                Err(why) => return Err(format!("{}: {why}; TIME is {}", usage(), Time::FORM)),
            },
            "packets" => Self::Packets {
                which: match rest {
                    "" => Which::Own,
                    "all" => Which::All,
                    _ => Which::Number(number(rest).ok_or_else(|| format!("{}: N is a number", usage()))?),
                },
            },
            "tamper" => {
                let packet = number(first);
                let how = if packet.is_some() || first.is_empty() { words } else { rest };
                let known = TAMPERINGS.iter().find(|(name, _)| *name == how);
                let how = match known {
                    Some((_, how)) => *how,
                    None if how.is_empty() => Tampering::Bit,
                    None => return Err(format!("{}; HOW is bit, sender, replay or key", usage())),
                };
                Self::Tamper { number: packet, how }
            }
            "help" => Self::Help { topic: Some(rest.to_owned()).filter(|topic| !topic.is_empty()) },
            "sessions" => Self::Sessions,
            "leave" => Self::Leave,
            "disc" => Self::Disconnect,
            "ping" => Self::Ping,
            "tgll" => Self::ToggleListening,
            "connections" => Self::Connections,
            "subscriptions" => Self::Subscriptions,
            "routes" => Self::Routes,
            _ => Self::Exit,
        })
    }
}

fn first_word(text: &str) -> (&str, &str) {
    let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (first, rest.trim_start())
}

/// `12` or `#12`.
fn number(text: &str) -> Option<u64> {
    text.strip_prefix('#').unwrap_or(text).parse().ok()
}

fn is_name(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(is_letter)
}

fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!("a name has 1 to {MAX_NAME} letters, digits, `-` or `_`"))
}

fn topic(text: &str, usage: impl Fn() -> String) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_whitespace) {
        return Err(format!("{}: TOPIC has 1 to {MAX_TEXT} bytes and no spaces", usage()));
    }
    Ok(text.to_owned())
}

fn described(text: &str) -> Result<String, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("a description has at most {MAX_TEXT} bytes"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(text: &str) -> Command {
        Line::parse(text).unwrap().unwrap().command
    }

    #[test]
    fn each_command_is_read() {
        for (verb, arguments, _) in COMMANDS {
            let example = match *arguments {
                "KIND NAME" => "client c1",
                "TOPIC VALUE" => "a/b some value",
                "" => "",
                _ => "1",
            };
            let read = Line::parse(&format!("{verb} {example}"));
            assert!(read.is_ok() || ["conn", "run"].contains(verb), "{verb}: {read:?}");
        }
        assert_eq!(Line::parse("c1:ping").unwrap().unwrap().session.as_deref(), Some("c1"));
        assert_eq!(
            command("publ a/b  some value "),
            Command::Publish { topic: "a/b".into(), value: "some value".into() }
        );
        assert_eq!(
            command("conn 10s a lamp"),
            Command::Connect { keep_alive: 10 * SECOND, description: "a lamp".into() }
        );
        assert_eq!(
            command("conn a lamp"),
            Command::Connect { keep_alive: KEEP_ALIVE, description: "a lamp".into() }
        );
        assert_eq!(command("tamper #3 sender"), Command::Tamper { number: Some(3), how: Tampering::Sender });
        assert_eq!(command("tamper replay"), Command::Tamper { number: None, how: Tampering::Replay });
        assert_eq!(command("tamper"), Command::Tamper { number: None, how: Tampering::Bit });
        assert_eq!(Line::parse(" # a remark"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_is_accepted() {
        for (text, told) in [
            ("pubb a 1", "did you mean `publ`?"),
            ("frobnicate", "`help` lists them"),
            ("publ a", "expected `publ TOPIC VALUE`: there is no value"),
            ("open printer p", "KIND is broker, client, router or master"),
            ("open client", "a name has 1 to 12 letters"),
            ("run 10", "has no unit"),
            ("conn 10", "has no unit"),
            ("ping b1", "takes nothing more"),
            ("tamper 3 gently", "HOW is bit, sender, replay or key"),
            ("step one", "N is a number"),
            ("publ a \u{1b}[2J", "no control characters"),
        ] {
            let error = Line::parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
