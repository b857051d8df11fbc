//! The ledger: what was sent, what was acknowledged and what came, and where these contradict each other.
//!
//! It is a state machine without I/O: clients tell it what they do and receive, with the time as a parameter. What
//! contradicts a promise at once is found at once; what has not come is found by [`Ledger::give_up`].

mod contradiction;
mod entry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use contradiction::seconds;
pub use contradiction::{Contradiction, Fault};
use entry::{Entry, Event, mark};
pub use entry::{Sent, shown};

use crate::answer::Answer;
use crate::key::Key;
use crate::request::{Code, RANDOM_BYTES, Request};

/// Rounds after which an entry that is settled becomes a [`Past`].
const REMEMBERED_ROUNDS: u32 = 4;

/// Contradictions of one kind that are kept with their history; beyond that they are counted.
const MAX_OF_A_KIND: u64 = 20;

/// Connections of a client, and subscriptions, that histories can name.
const MAX_CONNECTIONS: usize = 32;

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Whatever was acknowledged is kept: requests are answered, messages delivered, values retained, and sessions are
    /// there again.
    Acknowledged,
    /// A request with an `id` that is repeated until it is answered is answered, and with the same bytes each time.
    /// Nothing else survives: for brokers that are killed and do not sync what they acknowledge.
    Ids,
}

/// What clients have done and seen so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests that were sent, each once however often it was repeated.
    pub requests: u64,
    /// Repetitions of requests and messages, those that MQTT makes included.
    pub repetitions: u64,
    /// PUBACK and PUBREC.
    pub acknowledged: u64,
    /// Answers, whichever they repeat.
    pub answers: u64,
    /// Ordinary and retained messages that were sent.
    pub messages: u64,
    /// Ordinary messages that were received.
    pub received: u64,
    /// Contradictions of each kind, whether or not they are kept.
    pub contradictions: BTreeMap<Fault, u64>,
}

/// What is left of an entry that was settled some rounds ago.
#[derive(Debug)]
enum Past {
    /// A request with an `id`, and the mark of its answer.
    Identified(u64),
    /// A request without one.
    Anonymous,
    /// A message, at this quality of service.
    Message(u8),
}

/// A client, as the ledger knows it.
#[derive(Debug)]
struct Client {
    /// What answers bring back of a request, if the client sends it: its key, as Correlation Data.
    correlates: bool,
    /// Whether the broker has confirmed its session by a SUBACK.
    established: bool,
    /// At which quality of service it listens to ordinary messages.
    listens: Option<u8>,
    /// Its last connections.
    connections: VecDeque<(Duration, String)>,
}

impl Client {
    fn new(correlates: bool, listens: Option<u8>) -> Client {
        Client { correlates, established: false, listens, connections: VecDeque::new() }
    }

    fn note(&mut self, at: Duration, what: String) {
        self.connections.push_back((at, what));
        if self.connections.len() > MAX_CONNECTIONS {
            self.connections.pop_front();
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Ledger {
    promise: Promise,
    round: u32,
    clients: BTreeMap<u16, Client>,
    entries: BTreeMap<Key, Entry>,
    /// Those of the entries that are owed something.
    open: BTreeSet<Key>,
    past: HashMap<Key, Past>,
    /// By topic: the value that was acknowledged last.
    retained: BTreeMap<String, Bytes>,
    /// What was killed or cut, and when.
    events: Vec<(Duration, String)>,
    /// Of these, those after which what ran then may run once more.
    crashes: u32,
    /// Whether a request without an `id` may run however often.
    runs_often: bool,
    settled: u64,
    counts: Counts,
    contradictions: Vec<Contradiction>,
}

impl Ledger {
    /// An empty one.
    pub fn new(promise: Promise) -> Ledger {
        Ledger {
            promise,
            round: 0,
            clients: BTreeMap::new(),
            entries: BTreeMap::new(),
            open: BTreeSet::new(),
            past: HashMap::new(),
            retained: BTreeMap::new(),
            events: Vec::new(),
            crashes: 0,
            runs_often: false,
            settled: 0,
            counts: Counts::default(),
            contradictions: Vec::new(),
        }
    }

    /// A client that sends requests, with its keys as Correlation Data or without.
    pub fn add_device(&mut self, client: u16, correlates: bool) {
        self.clients.insert(client, Client::new(correlates, None));
    }

    /// A client that is to receive all ordinary messages, at this quality of service.
    pub fn add_listener(&mut self, client: u16, qos: u8) {
        self.clients.insert(client, Client::new(false, Some(qos)));
    }

    /// A round begins. Entries that were settled long ago are reduced to their marks.
    pub fn begin_round(&mut self, round: u32) {
        self.round = round;
        let old = |entry: &Entry| !entry.open && entry.round + REMEMBERED_ROUNDS < round;
        let past: Vec<Key> =
            self.entries.iter().filter(|(_, entry)| old(entry)).map(|(key, _)| *key).collect();
        for key in past {
            let Some(entry) = self.entries.remove(&key) else { continue };
            let past = match entry.sent {
                Sent::Request(request) if request.id => {
                    Past::Identified(entry.answer.as_deref().map_or(0, mark))
                }
                Sent::Request(_) => Past::Anonymous,
                Sent::Message { qos, .. } => Past::Message(qos),
                Sent::Retained { .. } => Past::Message(1),
            };
            self.past.insert(key, past);
        }
    }

    /// Nothing is promised about how often a request without an `id` runs: its broker may deliver it again.
    pub fn allow_runs(&mut self) {
        self.runs_often = true;
    }

    /// Something was killed: a gateway, a broker.
    pub fn crashed(&mut self, at: Duration, what: &str) {
        self.disturbed(at, &format!("{what} killed"));
        self.crashes += 1;
    }

    /// Something happened after which nothing may run once more: a link was cut.
    pub fn disturbed(&mut self, at: Duration, what: &str) {
        self.events.push((at, format!("{what} (round {})", self.round)));
    }

    /// A client has got its CONNACK: whether the broker has its session.
    pub fn connected(&mut self, at: Duration, client: u16, present: bool) {
        let Some(known) = self.clients.get_mut(&client) else { return };
        let session = if present { "the session is there" } else { "there is no session" };
        known.note(at, format!("client {client} connected: {session}"));
        if known.established && !present {
            // Once for each time that it is established.
            known.established = false;
            if self.promise == Promise::Acknowledged {
                let what = format!("client {client} subscribed, and the broker has no session of it");
                let history = known.connections.iter().chain(self.events.last()).cloned();
                let history = in_order(history.collect());
                self.contradict(at, Fault::SessionLost, what, history);
            }
        }
    }

    /// A client has got the SUBACK for all that it subscribes to.
    pub fn subscribed(&mut self, at: Duration, client: u16) {
        if let Some(known) = self.clients.get_mut(&client) {
            known.established = true;
            known.note(at, format!("client {client} has subscribed"));
        }
    }

    /// A client publishes something for the first time. Told before the first byte is written.
    pub fn sent(&mut self, at: Duration, key: Key, sent: Sent) {
        match sent {
            Sent::Request(_) => self.counts.requests += 1,
            Sent::Message { .. } | Sent::Retained { .. } => self.counts.messages += 1,
        }
        let crashes = self.crashes;
        self.entries.insert(key, Entry::new(at, self.round, crashes, sent));
        self.open.insert(key);
    }

    /// A client publishes the same once more, because it wants the answer again.
    pub fn sent_again(&mut self, at: Duration, key: Key) {
        let round = self.round;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.note(at, round, Event::SentAgain);
            entry.sends += 1;
            (entry.open, entry.acknowledged, entry.answered) = (true, false, false);
            self.open.insert(key);
            self.counts.repetitions += 1;
        }
    }

    /// A client publishes the same once more, because it was not acknowledged.
    pub fn retransmitted(&mut self, at: Duration, key: Key) {
        let round = self.round;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.note(at, round, Event::SentAgain);
            entry.sends += 1;
            self.counts.repetitions += 1;
        }
    }

    /// PUBACK or PUBREC came, with a reason code if it is none of success.
    pub fn acknowledged(&mut self, at: Duration, key: Key, refused: Option<u8>) {
        self.counts.acknowledged += 1;
        let round = self.round;
        if let Some(code) = refused {
            let what = format!("{key} was refused with reason code {code:#04x}");
            let history = self.history(key);
            self.contradict(at, Fault::Refused, what, history);
        }
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.note(at, round, Event::Acknowledged);
        entry.acknowledged = true;
        if let Sent::Retained { topic, payload } = &entry.sent {
            self.retained.insert(topic.clone(), payload.clone());
        }
        self.settle(key);
    }

    /// A client has received this on its topic for answers.
    pub fn answered(&mut self, at: Duration, client: u16, correlation: Option<&[u8]>, payload: &Bytes) {
        self.counts.answers += 1;
        let answer = Answer::read(payload);
        let by_correlation = correlation.and_then(|data| str::from_utf8(data).ok()?.parse().ok());
        let Some(key) = answer.key().or(by_correlation) else {
            let (fault, is) = match answer {
                Answer::Error { .. } => (Fault::Refused, "an error, to whichever request"),
                _ => (Fault::Unasked, "no answer to anything"),
            };
            self.contradict(
                at,
                fault,
                format!("client {client} received {is}: {}", shown(payload)),
                Vec::new(),
            );
            return;
        };
        let round = self.round;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.note(at, round, Event::Answered(client, payload.clone()));
        }
        if key.client != client {
            let what = format!("client {client} received an answer to {key}: {}", shown(payload));
            self.contradict(at, Fault::Misdirected, what, self.history(key));
            return;
        }
        let Some(entry) = self.entries.get(&key) else { return self.answered_late(at, key, payload) };
        let Sent::Request(request) = entry.sent else {
            let what = format!("client {client} received an answer to {key}, which is no request");
            return self.contradict(at, Fault::Unasked, what, self.history(key));
        };
        if let Some((fault, what)) = self.judge(key, request, &answer, correlation, payload) {
            let what = format!("{key}: {what}: {}", shown(payload));
            self.contradict(at, fault, what, self.history(key));
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.answer.get_or_insert_with(|| payload.clone());
            entry.answered = true;
        }
        // The acknowledgement of the same may come later, and at QoS 1 it has to.
        self.settle(key);
    }

    /// What is wrong with an answer to this request.
    fn judge(
        &mut self,
        key: Key,
        request: Request,
        answer: &Answer,
        correlation: Option<&[u8]>,
        payload: &Bytes,
    ) -> Option<(Fault, &'static str)> {
        let crashes = self.crashes;
        let correlates = self.clients.get(&key.client).is_some_and(|client| client.correlates);
        let entry = self.entries.get_mut(&key)?;
        let (id, stdout) = match answer {
            Answer::Output { id, stdout } => (id, stdout),
            Answer::Error { .. } => return Some((Fault::Refused, "an error in place of its output")),
            Answer::Unreadable => return Some((Fault::Wrong, "no answer of the contract")),
        };
        if !request.prints(key, stdout) {
            return Some((Fault::Wrong, "not what it prints"));
        }
        if id.as_deref() != request.id.then(|| key.to_string()).as_deref() {
            return Some((Fault::Wrong, "not its `id`"));
        }
        if correlates && correlation != Some(key.to_string().as_bytes()) {
            return Some((Fault::Wrong, "not its Correlation Data"));
        }
        if request.id {
            let changed = entry.answer.as_ref().is_some_and(|first| first != payload);
            return changed.then_some((Fault::Changed, "another answer than before"));
        }
        let run = (request.code != Code::Sum).then(|| stdout.last_chunk::<RANDOM_BYTES>()).flatten();
        if let Some(run) = run.filter(|run| !entry.runs.contains(run)) {
            entry.runs.push(*run);
            // Each publication can run, and each crash can have it run once more.
            let explained = entry.sends + (crashes - entry.crashes_before);
            if entry.runs.len() > explained as usize && !self.runs_often {
                return Some((Fault::RunTooOften, "more runs than publications and crashes"));
            }
        }
        None
    }

    fn answered_late(&mut self, at: Duration, key: Key, payload: &Bytes) {
        let fault = match self.past.get(&key) {
            Some(Past::Identified(before)) if *before != mark(payload) => Fault::Changed,
            Some(Past::Identified(_) | Past::Anonymous) => return,
            Some(Past::Message(_)) | None => Fault::Unasked,
        };
        self.contradict(at, fault, format!("{key}, settled or never sent: {}", shown(payload)), Vec::new());
    }

    /// A listener has received this as an ordinary message.
    pub fn received(&mut self, at: Duration, client: u16, payload: &Bytes) {
        self.counts.received += 1;
        let listens = self.clients.get(&client).and_then(|client| client.listens).unwrap_or(0);
        let named = payload.split(|byte| *byte == b' ').next();
        let key: Option<Key> = named.and_then(|text| str::from_utf8(text).ok()?.parse().ok());
        let round = self.round;
        let Some(key) = key else {
            let what = format!("client {client} received {}", shown(payload));
            return self.contradict(at, Fault::Unasked, what, Vec::new());
        };
        let Some(entry) = self.entries.get_mut(&key) else {
            let fault = match self.past.get(&key) {
                Some(Past::Message(2)) if listens == 2 => Fault::Twice,
                Some(Past::Message(_)) => return,
                _ => Fault::Unasked,
            };
            return self.contradict(at, fault, format!("client {client} received {key} late"), Vec::new());
        };
        entry.note(at, round, Event::Heard(client));
        let (exactly_once, right) = match &entry.sent {
            Sent::Message { qos, payload: sent } => (*qos == 2 && listens == 2, sent == payload),
            Sent::Request(_) | Sent::Retained { .. } => (false, false),
        };
        let again = entry.heard.contains(&client);
        if !again {
            entry.heard.push(client);
        }
        if !right {
            let what = format!("client {client} received {key} as {}", shown(payload));
            self.contradict(at, Fault::Wrong, what, self.history(key));
        } else if again && exactly_once && self.promise == Promise::Acknowledged {
            let what = format!("client {client} received {key} twice, published and subscribed at QoS 2");
            self.contradict(at, Fault::Twice, what, self.history(key));
        }
        self.settle(key);
    }

    /// What a new subscriber to all retained values has found, while no publication was under way.
    pub fn found_retained(&mut self, at: Duration, found: &BTreeMap<String, Bytes>) {
        for topic in found.keys().chain(self.retained.keys()).cloned().collect::<BTreeSet<String>>() {
            let owed = self.retained.get(&topic).filter(|payload| !payload.is_empty());
            let there = found.get(&topic);
            if owed != there {
                let text = |value: Option<&Bytes>| value.map_or("nothing".to_owned(), |value| shown(value));
                let what = format!("{topic} has {}, and {} was acknowledged last", text(there), text(owed));
                let sender = self.retained.get(&topic).and_then(|_| self.last_of_topic(&topic));
                let history = sender.map_or_else(Vec::new, |key| self.history(key));
                self.contradict(at, Fault::NotRetained, what, history);
            }
        }
    }

    /// The values that a new subscriber has to find.
    pub fn retained(&self) -> BTreeMap<String, Bytes> {
        let there = self.retained.iter().filter(|(_, payload)| !payload.is_empty());
        there.map(|(topic, payload)| (topic.clone(), payload.clone())).collect()
    }

    fn last_of_topic(&self, topic: &str) -> Option<Key> {
        let of_topic =
            |sent: &Sent| matches!(sent, Sent::Retained { topic: sent_to, .. } if sent_to == topic);
        self.entries.iter().filter(|(_, entry)| of_topic(&entry.sent)).map(|(key, _)| *key).next_back()
    }

    /// Whoever watches has seen something that is wrong beside all messages.
    pub fn observed(&mut self, at: Duration, fault: Fault, what: String) {
        let last = self.events.iter().rev().take(1);
        let history = last.map(|(at, what)| format!("{}: {what}", seconds(*at))).collect();
        self.contradict(at, fault, what, history);
    }

    /// Nothing more has come for long enough: whatever is open contradicts the promise. It is closed.
    pub fn give_up(&mut self, at: Duration) {
        for key in std::mem::take(&mut self.open) {
            let history = self.history(key);
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.open = false;
            let (fault, what) = match &entry.sent {
                Sent::Request(request) if request.qos == 0 => {
                    (Fault::Unanswered, "repeated and not answered")
                }
                _ if !entry.acknowledged => (Fault::Unacknowledged, "not acknowledged"),
                Sent::Request(_) if self.promise == Promise::Ids => (Fault::Unanswered, "not answered"),
                Sent::Request(_) => (Fault::Lost, "acknowledged and not answered"),
                Sent::Message { .. } => (Fault::Undelivered, "acknowledged and not delivered"),
                Sent::Retained { .. } => (Fault::Unacknowledged, "not acknowledged"),
            };
            let heard = &entry.heard;
            let missed = |(_, client): &(&u16, &Client)| client.listens.is_some();
            let missing: Vec<String> = self
                .clients
                .iter()
                .filter(missed)
                .filter(|(number, _)| fault == Fault::Undelivered && !heard.contains(*number))
                .map(|(number, _)| number.to_string())
                .collect();
            let to =
                if missing.is_empty() { String::new() } else { format!(" to client {}", missing.join(", ")) };
            self.contradict(at, fault, format!("{key} was {what}{to}"), history);
        }
    }

    /// How many entries are owed something.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// How many requests of this client are.
    pub fn open_requests(&self, client: u16) -> usize {
        let of_client = self.open.range(Key { client, number: 0 }..=Key { client, number: u32::MAX });
        of_client.filter(|key| self.request(**key).is_some()).count()
    }

    /// Whether this is owed something.
    pub fn is_open(&self, key: Key) -> bool {
        self.open.contains(&key)
    }

    /// The request of this key, if it is remembered.
    pub fn request(&self, key: Key) -> Option<Request> {
        match self.entries.get(&key)?.sent {
            Sent::Request(request) => Some(request),
            Sent::Message { .. } | Sent::Retained { .. } => None,
        }
    }

    /// Grows whenever an entry is settled.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// What clients have done and seen.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// All that was found, as far as it is kept.
    pub fn contradictions(&self) -> &[Contradiction] {
        &self.contradictions
    }

    /// Closes the entry if all that is owed has come.
    fn settle(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let settled = match &entry.sent {
            Sent::Request(request) => (entry.acknowledged || request.qos == 0) && entry.answered,
            Sent::Message { .. } => {
                let heard = &entry.heard;
                let missed =
                    |(number, client): (&u16, &Client)| client.listens.is_some() && !heard.contains(number);
                entry.acknowledged && !self.clients.iter().any(missed)
            }
            Sent::Retained { .. } => entry.acknowledged,
        };
        if settled && entry.open {
            entry.open = false;
            self.open.remove(&key);
            self.settled += 1;
        }
    }

    fn history(&self, key: Key) -> Vec<String> {
        let Some(entry) = self.entries.get(&key) else { return Vec::new() };
        // What happened to those who sent it and were to receive it, since it was sent.
        let of_message = matches!(entry.sent, Sent::Message { .. });
        let concerned = self.clients.iter().filter(|(number, client)| {
            **number == key.client
                || (of_message && client.listens.is_some() && !entry.heard.contains(number))
        });
        let beside = concerned.flat_map(|(_, client)| &client.connections).chain(&self.events);
        in_order(entry.history(beside))
    }

    fn contradict(&mut self, at: Duration, fault: Fault, what: String, history: Vec<String>) {
        let of_kind = self.counts.contradictions.entry(fault).or_default();
        *of_kind += 1;
        if *of_kind <= MAX_OF_A_KIND {
            self.contradictions.push(Contradiction { fault, round: self.round, at, what, history });
        }
    }
}

/// As lines.
fn in_order(mut events: Vec<(Duration, String)>) -> Vec<String> {
    // Stable: of events at one time the first one stays first.
    events.sort_by_key(|(at, _)| *at);
    events.into_iter().map(|(at, what)| format!("{}: {what}", seconds(at))).collect()
}
