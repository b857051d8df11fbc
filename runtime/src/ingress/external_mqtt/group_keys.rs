//! The keys that requests are sealed to, where several gateways share the requests of one broker: which keys all of
//! them have is noted on the retained topic `gateway/<share>/keys`. No secret is in there.
//!
//! A gateway asks there on each connection, before it takes requests, and gateways that have the group's keys answer
//! with the note. The first gateway makes the keys and the note; the others get the file from there. One with another
//! set refuses to start. One that has no file leaves sealed requests to the others. A note that no gateway confirms is
//! that of one that is gone: another takes its place. Renewed keys take the place of the note's, since they come with
//! those that they replace.
//!
//! Of two that start at once, both have asked before either notes its keys; the broker brings both notes to both in one
//! order, and the first one holds.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;
use tokio::time::Instant;
use tracing::{error, warn};

use super::grant::Grant;
use crate::ingress::Notice;
use crate::keys::{Keys, KeysError, OUTDATED, now_ms};
use crate::log_sampling::sampled;
use crate::random::random;

/// How long the broker may take to bring back what this gateway publishes; beyond that the keys are not compared.
const ECHO_WAIT: Duration = Duration::from_secs(10);
/// How long another gateway may take to confirm a note that contradicts this gateway's keys.
const CONFIRM_WAIT: Duration = Duration::from_secs(2);
/// Connections that may end before the group has agreed: a broker may end one for asking.
const MAX_FAILURES: u32 = 3;
/// Most keys in a note that is believed: more than a file has.
const MAX_NOTED: usize = 64;

/// See the module's documentation.
pub(super) struct GroupKeys {
    keys: Arc<Keys>,
    topic: Arc<str>,
    /// This gateway's.
    instance: String,
    /// Whether this process has made the keys.
    are_made: bool,
    /// Since when this set of keys, with those that it has replaced, is the group's; in milliseconds since 1970.
    since: u64,
    /// What was noted last.
    noted: Option<Note>,
    phase: Phase,
    /// Whether it was decided, on this connection or an earlier one, which keys this gateway has.
    has_agreed: bool,
    failures: u32,
}

/// How far the agreement on this connection is.
#[derive(Debug, PartialEq)]
enum Phase {
    /// Nothing is asked.
    Away,
    /// The question is out: all that is retained comes before it.
    Asking { question: String, until: Instant },
    /// What is noted are other keys; a gateway that has them is to say so.
    Confirming { until: Instant },
    /// The note is out: what comes before it was earlier.
    Noting { until: Instant },
    /// The keys are known.
    Agreed,
}

/// What is said on the topic.
#[derive(Deserialize)]
#[serde(untagged)]
enum Said {
    Question(Question),
    Note(Note),
}

/// Who has the group's keys is to note them. Not retained.
#[derive(Serialize, Deserialize)]
struct Question {
    /// The asking gateway's instance, and what tells this question from its others.
    asks: String,
}

/// Which keys the group has. Retained.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Note {
    /// Who has noted it.
    instance: String,
    /// Names the whole set.
    set: String,
    /// The fingerprints of the keys that open requests.
    keys: Vec<String>,
    /// As [`GroupKeys::since`].
    since: u64,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Step {
    /// This is to be published.
    Publish(Notice),
    /// The keys are known: requests can be taken.
    Agreed,
    /// This gateway has other keys than its group.
    Refused(KeysError),
}

impl GroupKeys {
    pub fn new(keys: Arc<Keys>, topic: String, instance: String) -> GroupKeys {
        GroupKeys {
            keys,
            topic: topic.into(),
            instance,
            are_made: false,
            since: 0,
            noted: None,
            phase: Phase::Away,
            has_agreed: false,
            failures: 0,
        }
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Whether it was ever decided which keys this gateway has.
    pub fn has_agreed(&self) -> bool {
        self.has_agreed
    }

    /// Until when the broker, or another gateway, is waited for.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Asking { until, .. } | Phase::Confirming { until } | Phase::Noting { until } => {
                Some(until)
            }
            Phase::Away | Phase::Agreed => None,
        }
    }

    /// The broker grants the subscription to the topic, or does not.
    pub fn subscribed(&mut self, grant: Grant) -> Vec<Step> {
        if let Grant::None(reason) = grant {
            return self.give_up(&reason);
        }
        if self.failures >= MAX_FAILURES {
            return self.give_up("it ends the connection");
        }
        let question = format!("{}-{:016x}", self.instance, random());
        let payload = serde_json::to_vec(&Question { asks: question.clone() });
        self.phase = Phase::Asking { question, until: Instant::now() + ECHO_WAIT };
        vec![self.publish(payload.unwrap_or_default(), false)]
    }

    /// The connection has ended.
    pub fn disconnected(&mut self) {
        self.failures += u32::from(matches!(self.phase, Phase::Asking { .. } | Phase::Noting { .. }));
        self.phase = Phase::Away;
        // The next broker may have another note.
        self.noted = None;
    }

    /// This was published on the topic.
    pub fn hear(&mut self, payload: &[u8]) -> Vec<Step> {
        match serde_json::from_slice(payload) {
            Ok(Said::Question(Question { asks })) => self.hear_question(&asks),
            Ok(Said::Note(note)) if note.keys.len() <= MAX_NOTED => self.hear_note(note),
            // Somebody has removed the note, or wrote something else there.
            _ => Vec::new(),
        }
    }

    /// The broker does not take what is published on the topic.
    pub fn denied(&mut self, reason: &str) -> Vec<Step> {
        match self.phase {
            Phase::Asking { .. } | Phase::Noting { .. } => self.give_up(reason),
            _ => Vec::new(),
        }
    }

    /// The [deadline](Self::deadline) has passed.
    pub fn overdue(&mut self) -> Vec<Step> {
        match self.phase {
            Phase::Away | Phase::Agreed => Vec::new(),
            Phase::Asking { .. } | Phase::Noting { .. } => {
                self.give_up("it does not bring back what is published there")
            }
            Phase::Confirming { .. } => {
                let keys = self.noted.as_ref().map(|noted| noted.keys.join(", "));
                warn!(
                    topic = %self.topic,
                    keys,
                    "no gateway of the group has the keys that are noted: this one's take their place"
                );
                self.note_own()
            }
        }
    }

    /// The file of keys was read again.
    pub fn renewed(&mut self) -> Vec<Step> {
        if self.phase != Phase::Agreed || self.keys.set().is_empty() {
            return Vec::new();
        }
        let own = self.keys.set();
        match &self.noted {
            Some(noted) if !own.has(&noted.keys) => {
                error!("{OUTDATED}");
                Vec::new()
            }
            Some(noted) if noted.set == own.fingerprint().to_string() => Vec::new(),
            noted => {
                self.since = noted.as_ref().map_or(self.since, |noted| noted.since);
                vec![self.note()]
            }
        }
    }

    fn hear_question(&mut self, asks: &str) -> Vec<Step> {
        match &self.phase {
            Phase::Asking { question, .. } if question == asks => self.decide(),
            Phase::Agreed if !asks.starts_with(&self.instance) && self.has_the_groups() => vec![self.note()],
            _ => Vec::new(),
        }
    }

    fn hear_note(&mut self, note: Note) -> Vec<Step> {
        let is_own = note.instance == self.instance;
        match self.phase {
            // What is retained may come before the broker confirms the subscription.
            Phase::Away | Phase::Asking { .. } => {
                self.noted = Some(note);
                Vec::new()
            }
            Phase::Noting { .. } if is_own => self.agree(),
            Phase::Confirming { .. } if !is_own => {
                self.noted = Some(note);
                self.compare()
            }
            Phase::Noting { .. } => {
                // It was there first: it stays.
                let payload = serde_json::to_vec(&note).unwrap_or_default();
                let earlier = self.publish(payload, true);
                self.noted = Some(note);
                std::iter::once(earlier).chain(self.compare()).collect()
            }
            Phase::Agreed if !is_own => self.hear_later(note),
            _ => Vec::new(),
        }
    }

    /// All that was retained is known.
    fn decide(&mut self) -> Vec<Step> {
        let own = self.keys.set();
        match &self.noted {
            Some(noted) if !self.has_agreed && (own.is_empty() || !own.has(&noted.keys)) => {
                self.phase = Phase::Confirming { until: Instant::now() + CONFIRM_WAIT };
                Vec::new()
            }
            Some(_) => self.compare(),
            None => self.note_own(),
        }
    }

    /// Compares the note of another gateway that serves, or has served with these keys.
    fn compare(&mut self) -> Vec<Step> {
        let Some(noted) = self.noted.clone() else { return self.agree() };
        let own = self.keys.set();
        if !own.is_empty() && own.has(&noted.keys) {
            self.since = noted.since;
            let renewed = (noted.set != own.fingerprint().to_string()).then(|| self.note());
            return self.agree().into_iter().chain(renewed).collect();
        }
        if self.has_agreed {
            // It has served on another connection, and goes on.
            let told = self.hear_later(noted);
            return self.agree().into_iter().chain(told).collect();
        }
        if self.are_made {
            // Made at the same time as another gateway's, which was faster.
            block_in_place(|| self.keys.unmake());
            self.are_made = false;
        }
        if self.keys.set().is_empty() {
            self.keys.warn_of_none();
            return self.agree();
        }
        let show = format!("mosquitto_sub -C 1 -t {}", self.topic);
        let instead = "stop all other gateways of the group first".to_owned();
        self.refuse(self.keys.another_set(&noted.keys, show, instead))
    }

    /// Nobody else has keys: those of this gateway are the group's.
    fn note_own(&mut self) -> Vec<Step> {
        if let Err(error) = self.make() {
            return self.refuse(error);
        }
        if self.keys.set().is_empty() {
            return self.agree();
        }
        self.phase = Phase::Noting { until: Instant::now() + ECHO_WAIT };
        vec![self.note()]
    }

    /// Another gateway has noted keys while this one serves, or had while it was away.
    fn hear_later(&mut self, note: Note) -> Vec<Step> {
        let own = self.keys.set();
        self.keys.set_others(note.keys.clone());
        let (is_same, has_all) = (note.set == own.fingerprint().to_string(), own.has(&note.keys));
        let since = note.since;
        self.noted = Some(note);
        if own.is_empty() || is_same {
            return Vec::new();
        }
        if has_all || since > self.since {
            self.since = self.since.min(since);
            return vec![self.note()];
        }
        _ = sampled!(error, topic = %self.topic, "{OUTDATED}");
        Vec::new()
    }

    /// The keys are not compared: this gateway has its own.
    fn give_up(&mut self, reason: &str) -> Vec<Step> {
        warn!(
            topic = %self.topic,
            reason,
            "cannot see which keys other gateways of the group have: sealed requests may be refused where they differ"
        );
        match self.make() {
            Ok(()) => self.agree(),
            Err(error) => self.refuse(error),
        }
    }

    fn refuse(&mut self, error: KeysError) -> Vec<Step> {
        self.phase = Phase::Away;
        vec![Step::Refused(error)]
    }

    fn make(&mut self) -> Result<(), KeysError> {
        if !self.has_agreed && self.keys.set().is_empty() {
            block_in_place(|| self.keys.make())?;
            self.are_made = true;
        }
        if self.since == 0 {
            self.since = now_ms();
        }
        Ok(())
    }

    fn agree(&mut self) -> Vec<Step> {
        self.phase = Phase::Agreed;
        (self.has_agreed, self.failures) = (true, 0);
        if let Some(noted) = &self.noted {
            self.keys.set_others(noted.keys.clone());
        }
        vec![Step::Agreed]
    }

    /// Whether this gateway opens all that is sealed to the group's keys.
    fn has_the_groups(&self) -> bool {
        let own = self.keys.set();
        !own.is_empty() && self.noted.as_ref().is_none_or(|noted| own.has(&noted.keys))
    }

    /// Notes the own keys.
    fn note(&mut self) -> Step {
        let own = self.keys.set();
        let (instance, set, since) = (self.instance.clone(), own.fingerprint().to_string(), self.since);
        let note = Note { instance, set, keys: own.fingerprints(), since };
        let payload = serde_json::to_vec(&note).unwrap_or_default();
        self.noted = Some(note);
        self.publish(payload, true)
    }

    fn publish(&self, payload: Vec<u8>, retain: bool) -> Step {
        Step::Publish(Notice { topic: self.topic.clone(), payload: payload.into(), retain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::keys;
    use std::collections::VecDeque;
    use std::path::Path;
    use tempfile::TempDir;

    /// A gateway and its data directory.
    struct Member {
        group: GroupKeys,
        folder: TempDir,
        refusal: Option<KeysError>,
    }

    impl Member {
        /// With this file of keys, if there is one.
        fn new(instance: &str, file: Option<&Path>) -> Member {
            let folder = TempDir::new().unwrap();
            if let Some(file) = file {
                std::fs::copy(file, folder.path().join(keys::FILE)).unwrap();
            }
            let config = Config { data_dir: folder.path().to_owned(), ..Config::default() };
            let keys = match file {
                Some(_) => Keys::open(&config).unwrap().0,
                None => Keys::none(&config),
            };
            let group = GroupKeys::new(keys, "gateway/g/keys".to_owned(), instance.to_owned());
            Member { group, folder, refusal: None }
        }

        fn file(&self) -> std::path::PathBuf {
            self.folder.path().join(keys::FILE)
        }

        fn prints(&self) -> Vec<String> {
            self.group.keys.set().fingerprints()
        }

        fn serves(&self) -> bool {
            self.group.phase == Phase::Agreed
        }
    }

    /// A broker with one topic, which brings what is published to all in one order.
    #[derive(Default)]
    struct Broker {
        retained: Option<Notice>,
        published: VecDeque<Notice>,
    }

    impl Broker {
        fn take(&mut self, member: &mut Member, steps: Vec<Step>) {
            for step in steps {
                match step {
                    Step::Publish(notice) => self.published.push_back(notice),
                    Step::Agreed => {}
                    Step::Refused(error) => member.refusal = Some(error),
                }
            }
        }

        fn join(&mut self, member: &mut Member) {
            let steps = member.group.subscribed(Grant::All);
            self.take(member, steps);
            if let Some(notice) = &self.retained {
                let steps = member.group.hear(&notice.payload);
                self.take(member, steps);
            }
        }

        /// Brings all of it to these.
        fn deliver(&mut self, members: &mut [&mut Member]) {
            let mut messages = 0;
            while let Some(notice) = self.published.pop_front() {
                messages += 1;
                assert!(messages < 100, "they go on for ever");
                if notice.retain {
                    self.retained = Some(notice.clone());
                }
                for member in members.iter_mut() {
                    let steps = member.group.hear(&notice.payload);
                    self.take(member, steps);
                }
            }
        }

        fn noted(&self) -> Note {
            serde_json::from_slice(&self.retained.as_ref().unwrap().payload).unwrap()
        }
    }

    #[test]
    fn the_first_gateway_makes_the_keys_of_all() {
        let mut broker = Broker::default();
        let mut first = Member::new("a", None);
        broker.join(&mut first);
        broker.deliver(&mut [&mut first]);
        assert!(first.serves() && !first.prints().is_empty());
        assert_eq!(broker.noted().keys, first.prints());

        let mut same = Member::new("b", Some(&first.file()));
        broker.join(&mut same);
        broker.deliver(&mut [&mut first, &mut same]);
        assert!(same.serves());

        let mut without = Member::new("c", None);
        broker.join(&mut without);
        broker.deliver(&mut [&mut first, &mut same, &mut without]);
        assert!(without.serves() && without.prints().is_empty() && !without.file().exists());
        let print = first.prints()[0].parse().unwrap();
        assert!(without.group.keys.is_anothers(&print) && !same.group.keys.is_anothers(&print));

        let other = Member::new("x", None);
        other.group.keys.make().unwrap();
        let mut other = Member::new("d", Some(&other.file()));
        broker.join(&mut other);
        broker.deliver(&mut [&mut first, &mut same, &mut without, &mut other]);
        let refusal = other.refusal.unwrap().to_string();
        assert!(refusal.contains(&first.prints()[0]) && refusal.contains("gateway/g/keys"), "{refusal}");
        assert_eq!(broker.noted().keys, first.prints());
    }

    #[test]
    fn of_two_that_start_at_once_the_first_note_holds() {
        let mut broker = Broker::default();
        let made = Member::new("x", None);
        made.group.keys.make().unwrap();
        let mut members =
            [Member::new("a", None), Member::new("b", Some(&made.file())), Member::new("c", None)];
        for member in &mut members {
            broker.join(member);
        }
        let [first, second, third] = &mut members;
        broker.deliver(&mut [first, second, third]);
        assert!(first.serves() && !first.prints().is_empty());
        assert!(second.refusal.is_some() && !second.serves());
        assert!(third.serves() && third.prints().is_empty() && !third.file().exists());
        assert_eq!(broker.noted().keys, first.prints());
    }

    #[test]
    fn a_note_that_nobody_confirms_gives_way() {
        let mut broker = Broker::default();
        let mut gone = Member::new("a", None);
        broker.join(&mut gone);
        broker.deliver(&mut [&mut gone]);
        gone.group.since -= 1;
        let mut next = Member::new("b", None);
        broker.join(&mut next);
        broker.deliver(&mut [&mut next]);
        assert!(!next.serves() && next.group.deadline().is_some());
        let steps = next.group.overdue();
        broker.take(&mut next, steps);
        broker.deliver(&mut [&mut next]);
        assert!(next.serves());
        assert_eq!(broker.noted().keys, next.prints());

        // It was there earlier, and is back: both say so, and the note does not change for ever.
        gone.group.disconnected();
        broker.join(&mut gone);
        broker.deliver(&mut [&mut gone, &mut next]);
        assert!(gone.serves() && next.serves());
        assert_eq!(broker.noted().keys, gone.prints());
    }

    #[test]
    fn renewed_keys_take_the_place_of_those_that_they_replace() {
        let mut broker = Broker::default();
        let mut first = Member::new("a", None);
        broker.join(&mut first);
        broker.deliver(&mut [&mut first]);
        let old = first.file().with_extension("old");
        std::fs::copy(first.file(), &old).unwrap();
        let mut second = Member::new("b", Some(&old));
        broker.join(&mut second);
        broker.deliver(&mut [&mut first, &mut second]);

        keys::rotate(&first.file()).unwrap();
        first.group.keys.reload(Duration::from_secs(60)).unwrap();
        let steps = first.group.renewed();
        broker.take(&mut first, steps);
        broker.deliver(&mut [&mut first, &mut second]);
        let new = first.prints()[0].parse().unwrap();
        assert_eq!(broker.noted().keys, first.prints());
        assert!(second.group.keys.is_anothers(&new), "what is sealed to it is left to the other");

        let mut behind = Member::new("c", Some(&old));
        broker.join(&mut behind);
        broker.deliver(&mut [&mut first, &mut second, &mut behind]);
        assert!(behind.refusal.is_some());

        // The other way round: whoever starts has what the others have, and more.
        first.group.disconnected();
        let mut ahead = Member::new("d", Some(&first.file()));
        broker.retained = None;
        second.group.disconnected();
        broker.join(&mut second);
        broker.deliver(&mut [&mut second]);
        broker.join(&mut ahead);
        broker.deliver(&mut [&mut second, &mut ahead]);
        assert!(ahead.serves() && ahead.refusal.is_none());
        assert_eq!(broker.noted().keys, ahead.prints());
    }

    #[test]
    fn a_broker_that_does_not_let_them_compare_is_served() {
        let refuses = |member: &mut GroupKeys| member.subscribed(Grant::None("no".to_owned()));
        let denies = |member: &mut GroupKeys| {
            member.subscribed(Grant::All);
            member.denied("no")
        };
        let brings_nothing = |member: &mut GroupKeys| {
            member.subscribed(Grant::All);
            member.overdue()
        };
        let ends = |member: &mut GroupKeys| {
            for _ in 0..MAX_FAILURES {
                member.subscribed(Grant::All);
                member.disconnected();
            }
            member.subscribed(Grant::All)
        };
        let brokers: [fn(&mut GroupKeys) -> Vec<Step>; 4] = [refuses, denies, brings_nothing, ends];
        for broker in brokers {
            let mut member = Member::new("a", None);
            let steps = broker(&mut member.group);
            assert!(matches!(steps[..], [Step::Agreed]), "{steps:?}");
            assert!(!member.prints().is_empty());
        }
    }
}
