//! What the console does: carries out one command after the other, and shows what the connection says meanwhile.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use offload_client::{MqttVersion, Options};
use offload_mqtt::{Full, Message, QoS};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep_until};

use super::Line;
use super::command::{self, Command};
use super::screen::{Kind, Screen};
use crate::acknowledgement::{AckPacket, Acknowledgement};
use crate::failure::{EXIT_ERROR, EXIT_INTERRUPTED, EXIT_TIMEOUT};
use crate::link::{Link, LinkEvent, Packet};
use crate::message::{line, text};
use crate::report::unless_unprintable;

/// While the display is paused, the newest messages are kept for when it goes on; of earlier ones only their number.
const MAX_HELD_BACK: usize = 100;

/// The console's state.
pub struct Session {
    options: Options,
    ack_timeout: Duration,
    screen: Screen,
    link: Option<Link>,
    /// The command that waits for its acknowledgement; the next one is not read before.
    waiting: Option<Waiting>,
    /// `None` while messages are shown.
    held_back: Option<HeldBack>,
    /// The line that is being carried out.
    number: Option<u64>,
    /// Of the first command that failed.
    exit_code: u8,
    /// Why nobody can see what we show any more.
    unseen: Option<io::Error>,
}

/// What ends the command that is being carried out.
struct Waiting {
    awaited: Awaited,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    ConnAck,
    /// Our packet is not written yet.
    Sending(Packet, QoS),
    /// What acknowledges the packet of this id.
    Ack(AckPacket, u16),
}

#[derive(Default)]
struct HeldBack {
    newest: VecDeque<String>,
    earlier: u64,
}

impl Session {
    pub fn new(options: Options, ack_timeout: Duration, screen: Screen) -> Self {
        Self {
            options,
            ack_timeout,
            screen,
            link: None,
            waiting: None,
            held_back: None,
            number: None,
            exit_code: 0,
            unseen: None,
        }
    }

    /// Runs until `exit` or the end of the lines; returns the exit code.
    pub async fn run(mut self, mut lines: mpsc::Receiver<Line>, interrupts: Arc<Notify>) -> u8 {
        if self.screen.is_terminal() {
            self.notice("`help` lists the commands");
        }
        while self.unseen.is_none() {
            let deadline = self.waiting.as_ref().map(|waiting| waiting.deadline);
            tokio::select! {
                event = next_event(&mut self.link) => self.handle(event),
                line = lines.recv(), if deadline.is_none() => match line {
                    None => break,
                    Some(line) => {
                        if !self.enter(line) {
                            break;
                        }
                    }
                },
                () = until(deadline) => {
                    let patience = format!("within {} ms", self.ack_timeout.as_millis());
                    self.give_up("timeout", EXIT_TIMEOUT, &patience);
                }
                () = interrupts.notified(), if deadline.is_some() => {
                    self.give_up("interrupted", EXIT_INTERRUPTED, "yet");
                }
            }
        }
        self.farewell().await;
        unless_unprintable(self.unseen.map_or(Ok(()), Err), self.exit_code)
    }

    /// Carries out a line, or begins to; false when it ends the session.
    fn enter(&mut self, line: Line) -> bool {
        self.number = line.number;
        match line.text.and_then(|line| command::parse(&line)) {
            Ok(None) => {}
            Ok(Some(command)) => return self.carry_out(command),
            Err(problem) => self.fail("malformed", EXIT_ERROR, &problem),
        }
        true
    }

    fn carry_out(&mut self, command: Command) -> bool {
        match command {
            Command::Connect { address, version } => self.connect(address, version),
            Command::Publish { topic, value, qos, retain } => {
                self.send(Packet::Publish, qos, |link| link.publish(&topic, &value, qos, retain));
            }
            Command::Subscribe { filter, qos } => {
                self.send(Packet::Subscribe, qos, |link| link.subscribe(&filter, qos));
            }
            Command::Unsubscribe { filter } => {
                self.send(Packet::Unsubscribe, QoS::AtLeastOnce, |link| link.unsubscribe(&filter));
            }
            Command::Disconnect => self.send(Packet::Disconnect, QoS::AtMostOnce, Link::disconnect),
            Command::Toggle => self.toggle(),
            Command::Help => command::help().iter().for_each(|line| self.notice(line)),
            Command::Exit => return false,
        }
        true
    }

    fn connect(&mut self, address: Option<(String, u16)>, version: Option<MqttVersion>) {
        if self.link.is_some() {
            return self.fail("connection", EXIT_ERROR, "there is one: DISCONNECT first");
        }
        if let Some((host, port)) = address {
            (self.options.host, self.options.port) = (host, port);
        }
        match Link::connect(&self.options, version.unwrap_or(self.options.mqtt_version)) {
            Ok(link) => self.link = Some(link),
            Err(error) => return self.fail(error.kind(), EXIT_ERROR, &error.to_string()),
        }
        self.wait_for(Awaited::ConnAck);
    }

    fn send(&mut self, packet: Packet, qos: QoS, send: impl FnOnce(&Link) -> Result<(), Full>) {
        match self.link.as_ref().map(send) {
            None => self.fail("connection", EXIT_ERROR, "there is none: CONNECT first"),
            Some(Ok(())) => self.wait_for(Awaited::Sending(packet, qos)),
            Some(Err(Full)) => self.lose("connection", EXIT_ERROR, "nothing can be sent"),
        }
    }

    fn wait_for(&mut self, awaited: Awaited) {
        self.waiting = Some(Waiting { awaited, deadline: Instant::now() + self.ack_timeout });
    }

    fn handle(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Sent(packet, id) => self.sent(packet, id),
            LinkEvent::Acknowledged(acknowledgement) => self.acknowledged(&acknowledgement),
            LinkEvent::Message(message) => self.message(&message),
            LinkEvent::Disconnected(code, reason) => {
                let reason = reason.map(|reason| format!(" ({})", text(&reason))).unwrap_or_default();
                self.show(Kind::Refusal, &format!("DISCONNECT received: {code}{reason}"));
                self.closed(Some("the broker ended the connection".to_owned()));
            }
            LinkEvent::Closed(reason) => self.closed(reason),
        }
    }

    /// Our packets are written in the order of the commands, each of which waits for the one before.
    fn sent(&mut self, packet: Packet, id: u16) {
        let Some(Waiting { awaited: Awaited::Sending(awaited, qos), .. }) = self.waiting else { return };
        if awaited != packet {
            return;
        }
        let acknowledged_by = match (packet, qos) {
            (Packet::Publish, QoS::AtMostOnce) => {
                self.waiting = None;
                return self.notice("PUBLISH sent: nobody acknowledges QoS 0");
            }
            (Packet::Disconnect, _) => {
                // The end of the connection is what comes next.
                return self.notice("DISCONNECT sent");
            }
            (Packet::Publish, QoS::AtLeastOnce) => AckPacket::PubAck,
            (Packet::Publish, QoS::ExactlyOnce) => AckPacket::PubRec,
            (Packet::Subscribe, _) => AckPacket::SubAck,
            (Packet::Unsubscribe, _) => AckPacket::UnsubAck,
        };
        if let Some(waiting) = &mut self.waiting {
            waiting.awaited = Awaited::Ack(acknowledged_by, id);
        }
    }

    fn acknowledged(&mut self, acknowledgement: &Acknowledgement) {
        let Acknowledgement { packet, id, .. } = *acknowledgement;
        let refusal = acknowledgement.refusal();
        let kind = if refusal.is_some() { Kind::Refusal } else { Kind::Acknowledgement };
        self.show(kind, &describe(acknowledgement));
        let awaited = match packet {
            AckPacket::ConnAck => Awaited::ConnAck,
            _ => Awaited::Ack(packet, id),
        };
        // One that comes too late is somebody else's.
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.awaited == awaited) else {
            return;
        };
        match refusal {
            // The reason for the end of the connection follows.
            Some(_) if packet == AckPacket::ConnAck => {}
            Some(code) => self.fail("refused", EXIT_ERROR, &code.to_string()),
            None if packet == AckPacket::PubRec => waiting.awaited = Awaited::Ack(AckPacket::PubComp, id),
            None => self.waiting = None,
        }
    }

    fn message(&mut self, message: &Message) {
        let Some(held_back) = &mut self.held_back else {
            return self.show(Kind::Message, &line(message));
        };
        if held_back.newest.len() == MAX_HELD_BACK {
            held_back.newest.pop_front();
            held_back.earlier += 1;
        }
        held_back.newest.push_back(line(message));
    }

    fn toggle(&mut self) {
        let Some(HeldBack { newest, earlier }) = self.held_back.take() else {
            self.held_back = Some(HeldBack::default());
            return self.notice("messages are held back; TOGGLE shows them");
        };
        let count = earlier + newest.len() as u64;
        self.notice(&format!("messages are shown; {count} were held back"));
        if earlier > 0 {
            self.notice(&format!("the first {earlier} of them are lost"));
        }
        for line in newest {
            self.show(Kind::Message, &line);
        }
    }

    fn closed(&mut self, reason: Option<String>) {
        match &self.waiting {
            // Some brokers close first.
            Some(Waiting { awaited: Awaited::Sending(Packet::Disconnect, _), .. }) => {
                self.link = None;
                self.waiting = None;
                return;
            }
            Some(_) => {}
            // It is no command's fault.
            None => self.number = None,
        }
        let reason = reason.unwrap_or_else(|| "the connection ended".to_owned());
        self.lose("connection", EXIT_ERROR, &text(&reason));
    }

    /// The acknowledgement did not come, or nobody wants to wait for it any longer.
    fn give_up(&mut self, kind: &str, exit_code: u8, patience: &str) {
        let missing = match self.waiting.as_ref().map(|waiting| waiting.awaited) {
            None => return,
            Some(Awaited::Ack(packet, id)) => {
                return self.fail(kind, exit_code, &format!("no {packet} for id {id} {patience}"));
            }
            Some(Awaited::ConnAck) => "CONNACK",
            // Else the next command's packet would be taken for this one's.
            Some(Awaited::Sending(..)) => "room to send",
        };
        self.lose(kind, exit_code, &format!("no {missing} {patience}: connection closed"));
    }

    /// There is no connection any more.
    fn lose(&mut self, kind: &str, exit_code: u8, reason: &str) {
        self.link = None;
        self.fail(kind, exit_code, reason);
    }

    /// Says why a command failed, or what happened between two.
    fn fail(&mut self, kind: &str, exit_code: u8, message: &str) {
        self.waiting = None;
        if self.exit_code == 0 && !self.screen.is_terminal() {
            self.exit_code = exit_code;
        }
        let place = self.number.map(|number| format!("line {number}: ")).unwrap_or_default();
        self.show(Kind::Error, &format!("error: {kind}: {place}{message}"));
    }

    fn notice(&mut self, line: &str) {
        self.show(Kind::Notice, line);
    }

    fn show(&mut self, kind: Kind, line: &str) {
        if let Err(error) = self.screen.show(kind, line) {
            self.unseen.get_or_insert(error);
        }
    }

    async fn farewell(&mut self) {
        if let Some(link) = self.link.take() {
            link.farewell(|message| self.message(&message)).await;
        }
    }
}

async fn next_event(link: &mut Option<Link>) -> LinkEvent {
    match link {
        Some(link) => link.event().await,
        None => pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

fn describe(acknowledgement: &Acknowledgement) -> String {
    let Acknowledgement { packet, id, codes, details } = acknowledgement;
    let mut line = packet.to_string();
    if *packet != AckPacket::ConnAck {
        line.push_str(&format!(" id {id}"));
    }
    let codes: Vec<_> = codes.iter().map(ToString::to_string).collect();
    if !codes.is_empty() {
        line.push_str(&format!(": {}", codes.join(", ")));
    }
    if !details.is_empty() {
        line.push_str(&format!(" ({})", text(&details.join(", "))));
    }
    line
}
