//! What a terminal has open, and how its commands are carried out.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::command::{Command, Line, Which};
use super::display::{View, time};
use super::endpoint::Endpoint;
use super::help;
use super::network::{Event, Network};
use super::packet::SessionId;

/// One terminal's sessions.
pub struct Shell {
    view: View,
    own: BTreeSet<SessionId>,
    current: Option<SessionId>,
    last: Option<SessionId>,
}

/// What a terminal shows of a command, and of its next prompt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// To be shown as it is.
    pub text: String,
    /// The current session.
    pub session: String,
    /// The virtual time, and what is on the way.
    pub status: String,
    /// The command could not be carried out.
    pub failed: bool,
    /// The terminal ends.
    pub exit: bool,
}

/// What becomes of a command, before what has happened through it is told.
pub struct Outcome {
    /// What it shows itself; an error is what is wrong.
    pub shown: Result<String, String>,
    /// The terminal ends.
    pub exit: bool,
}

impl Shell {
    /// Without sessions.
    pub fn new(view: View) -> Self {
        Self { view, own: BTreeSet::new(), current: None, last: None }
    }

    /// Carries a line out.
    pub fn carry_out(&mut self, line: &str, network: &mut Network) -> Outcome {
        let parsed = Line::parse(line).and_then(|line| match line {
            Some(Line { session: Some(name), command }) => {
                self.last = self.current;
                let id = self.find_own(&name, network)?;
                self.current = Some(id);
                Ok(Some((command, true)))
            }
            Some(Line { session: None, command }) => Ok(Some((command, false))),
            None => Ok(None),
        });
        let (command, is_for_once) = match parsed {
            Ok(Some(found)) => found,
            Ok(None) => return Outcome { shown: Ok(String::new()), exit: false },
            Err(why) => return Outcome { shown: Err(why), exit: false },
        };
        let exit = command == Command::Exit;
        let shown = self.execute(command, network);
        if is_for_once {
            self.current = self.last.filter(|last| self.own.contains(last));
        }
        Outcome { shown, exit }
    }

    /// What of all that has happened its sessions see.
    pub fn sees(&self, event: &Event, network: &Network) -> Option<String> {
        let mut concerned = event.sessions.iter().flatten();
        concerned.any(|id| self.own.contains(id)).then(|| self.view.event(network, event))
    }

    /// What is shown after a command.
    pub fn reply(&self, seen: String, outcome: Outcome, network: &Network) -> Reply {
        let Outcome { shown, exit } = outcome;
        let failed = shown.is_err();
        let told = match shown {
            Ok(text) if self.view.json && !text.is_empty() => format!("{}\n", json!({ "text": text })),
            Ok(text) => text,
            Err(why) => self.view.error(&why),
        };
        let current = self.current.and_then(|id| network.session(id));
        let on_the_way = match network.on_the_way() {
            0 => String::new(),
            packets => format!(", {packets} on the way"),
        };
        Reply {
            text: seen + &told,
            session: current.map_or_else(String::new, |session| session.name.clone()),
            status: format!("{} s{on_the_way}", time(network.now())),
            failed,
            exit,
        }
    }

    /// The terminal has ended: its sessions end.
    pub fn end(&mut self, network: &mut Network) {
        self.current = None;
        std::mem::take(&mut self.own).into_iter().for_each(|id| network.close(id));
    }

    fn find_own(&self, name: &str, network: &Network) -> Result<SessionId, String> {
        match network.sessions().find(|(_, session)| session.name == name) {
            Some((id, _)) if self.own.contains(&id) => Ok(id),
            Some(_) => Err(format!("{name} is a session of another terminal: use it there")),
            None => Err(format!(
                "there is no session {name}: `sessions` lists them, `open client {name}` opens it"
            )),
        }
    }

    fn current(&self) -> Result<SessionId, String> {
        self.current.ok_or_else(|| "no session is current: `open broker b1`, or `use NAME`".to_owned())
    }

    fn execute(&mut self, command: Command, network: &mut Network) -> Result<String, String> {
        let nothing = Ok(String::new());
        match command {
            Command::Open { role, name } => {
                let id = network.open(role, &name)?;
                self.own.insert(id);
                self.current = Some(id);
                self.last = Some(id);
                Ok(self.view.sentence(&format!("{name} is open, a {role}; `join` is next")))
            }
            Command::Use { name } => {
                self.current = Some(self.find_own(&name, network)?);
                self.last = self.current;
                nothing
            }
            Command::Sessions => Ok(self.view.sessions(network, |id| self.own.contains(&id), self.current)),
            Command::Close { name } => {
                let id = self.find_own(&name, network)?;
                network.close(id);
                self.own.remove(&id);
                self.current = self.current.filter(|current| *current != id);
                nothing
            }
            Command::Join { network: name } => {
                let id = self.current()?;
                network.join(id, &name)?;
                Ok(network
                    .session(id)
                    .map(|session| self.view.sentence(&joined(session)))
                    .unwrap_or_default())
            }
            Command::Leave => network.leave(self.current()?).map(|()| String::new()),
            Command::Connect { keep_alive, description } => {
                let connect = |session: &mut Endpoint, _| session.connect(keep_alive, &description);
                network.act(self.current()?, connect).map(|()| String::new())
            }
            Command::Disconnect => {
                network.act(self.current()?, |session, now| session.disconnect(now)).map(|()| String::new())
            }
            Command::Subscribe { topic, description } => {
                let subscribe = |session: &mut Endpoint, now| session.subscribe(&topic, &description, now);
                network.act(self.current()?, subscribe).map(|()| String::new())
            }
            Command::Unsubscribe { topic } => {
                network.act(self.current()?, |session, _| session.unsubscribe(&topic)).map(|()| String::new())
            }
            Command::Publish { topic, value } => {
                let publish = |session: &mut Endpoint, _| session.publish(&topic, &value);
                network.act(self.current()?, publish).map(|()| String::new())
            }
            Command::Ping => {
                network.act(self.current()?, |session, now| session.ping(now)).map(|()| String::new())
            }
            Command::ToggleListening => {
                let id = self.current()?;
                let listens = network.toggle_listening(id);
                let name = network.session(id).map_or("", |session| &session.name);
                Ok(match listens {
                    true => format!("{name} listens again\n"),
                    false => {
                        format!("{name} does not listen: what comes waits; `tgll` once more ends this\n")
                    }
                })
            }
            Command::Step { packets } => {
                let delivered = (0..packets).take_while(|_| network.step()).count();
                Ok(if delivered == 0 { self.view.sentence(&nothing_left(network)) } else { String::new() })
            }
            Command::Run { time: None } => {
                let mut delivered = false;
                while network.step() {
                    delivered = true;
                }
                Ok(if delivered { String::new() } else { self.view.sentence(&nothing_left(network)) })
            }
            Command::Run { time: Some(duration) } => {
                network.run_until(network.now().saturating_add(duration));
                Ok(self.view.sentence(&format!("it is {} s", time(network.now()))))
            }
            Command::Connections => Ok(self.view.connections(self.shown(network)?.1)),
            Command::Subscriptions => Ok(self.view.subscriptions(self.shown(network)?.1)),
            Command::Routes => {
                let (id, session) = self.shown(network)?;
                Ok(self.view.routes(network, id, session))
            }
            Command::Packets { which: Which::All } => Ok(self.view.packets(network, None)),
            Command::Packets { which: Which::Own } => Ok(self.view.packets(network, Some(self.current()?))),
            Command::Packets { which: Which::Number(number) } => {
                let packet =
                    network.packets().map(|(_, packet)| packet).find(|packet| packet.number == number);
                let packet = packet.ok_or_else(|| {
                    format!("no packet #{number} is remembered; `packets all` shows the last ones")
                })?;
                Ok(self.view.packet(network, packet))
            }
            Command::Tamper { number, how } => {
                let serial = network.tamper(number, how)?;
                let packet = network.packet(serial).map(|packet| self.view.packet(network, packet));
                Ok(packet.unwrap_or_default())
            }
            Command::Help { topic } => help::on(topic.as_deref(), self.view.columns).ok_or_else(|| {
                format!("there is no help on {:?}, but on: {}", topic.unwrap_or_default(), help::topics())
            }),
            Command::Exit => nothing,
        }
    }

    /// The current session, to be shown.
    fn shown<'n>(&self, network: &'n Network) -> Result<(SessionId, &'n Endpoint), String> {
        let id = self.current()?;
        network.session(id).map(|session| (id, session)).ok_or_else(|| "the session has ended".to_owned())
    }
}

fn joined(session: &Endpoint) -> String {
    let mut text = session.name.clone();
    if let Some(local) = &session.local {
        text.push_str(&format!(" is {} in {}", local.address, local.name));
    }
    if let Some(global) = session.global {
        let and = if session.local.is_some() { " and" } else { " is" };
        text.push_str(&format!("{and} {global} between networks"));
    }
    if session.role.serves() {
        text.push_str(&format!("; its public key has the fingerprint {}", session.public_fingerprint()));
    }
    text
}

/// What else can happen.
fn nothing_left(network: &Network) -> String {
    let mut text = "no packet is on the way".to_owned();
    if let Some(deadline) = network.next_deadline() {
        text.push_str(&format!(
            "; `run 10s` lets time go by: at {} s a client is dropped for its silence",
            time(deadline)
        ));
    }
    text
}
