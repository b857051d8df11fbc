//! Forged histories: each fault is found, and what is right is not taken for one.

use super::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const DEVICE: u16 = 1;
const OTHER: u16 = 2;
const LISTENER: u16 = 8;
const EXACT_LISTENER: u16 = 9;

const KEY: Key = Key { client: DEVICE, number: 17 };

const SUM: Request = Request { code: Code::Sum, id: false, qos: 1, milliseconds: 0, filler: 0 };
const ANONYMOUS: Request = Request { code: Code::Digest, id: false, qos: 1, milliseconds: 0, filler: 8 };
const IDENTIFIED: Request = Request { code: Code::Digest, id: true, qos: 1, milliseconds: 0, filler: 8 };
const REPEATED: Request = Request { code: Code::Digest, id: true, qos: 0, milliseconds: 0, filler: 8 };

/// A ledger, and a clock that ticks with each event.
struct Story {
    ledger: Ledger,
    at: Duration,
}

impl Story {
    fn new(promise: Promise) -> Story {
        let mut ledger = Ledger::new(promise);
        ledger.add_device(DEVICE, false);
        ledger.add_device(OTHER, false);
        Story { ledger, at: Duration::ZERO }
    }

    fn with_listeners() -> Story {
        let mut story = Story::new(Promise::Acknowledged);
        story.ledger.add_listener(LISTENER, 1);
        story.ledger.add_listener(EXACT_LISTENER, 2);
        story
    }

    fn tick(&mut self) -> Duration {
        self.at += Duration::from_millis(1);
        self.at
    }

    fn sent(&mut self, request: Request) {
        let at = self.tick();
        self.ledger.sent(at, KEY, Sent::Request(request));
    }

    fn sent_again(&mut self) {
        let at = self.tick();
        self.ledger.sent_again(at, KEY);
    }

    fn acknowledged(&mut self) {
        let at = self.tick();
        self.ledger.acknowledged(at, KEY, None);
    }

    fn killed(&mut self) {
        let at = self.tick();
        self.ledger.crashed(at, "the gateway");
    }

    fn answered(&mut self, client: u16, payload: &Bytes) {
        let at = self.tick();
        self.ledger.answered(at, client, None, payload);
    }

    fn published(&mut self, qos: u8) {
        let at = self.tick();
        self.ledger.sent(at, KEY, Sent::Message { qos, payload: message() });
    }

    fn received(&mut self, client: u16, payload: &Bytes) {
        let at = self.tick();
        self.ledger.received(at, client, payload);
    }

    fn subscribed(&mut self) {
        let at = self.tick();
        self.ledger.subscribed(at, DEVICE);
    }

    fn connected(&mut self, present: bool) {
        let at = self.tick();
        self.ledger.connected(at, DEVICE, present);
    }

    fn value(&mut self, number: u32, value: &'static str) {
        let at = self.tick();
        let (topic, payload) = ("state/1".to_owned(), Bytes::from(value));
        self.ledger.sent(at, Key { client: DEVICE, number }, Sent::Retained { topic, payload });
    }

    /// What is found in the end.
    fn end(mut self) -> Vec<Fault> {
        let at = self.tick();
        self.ledger.give_up(at);
        self.ledger.contradictions().iter().map(|contradiction| contradiction.fault).collect()
    }
}

/// The answer of a run that printed this random byte, in the request's form.
fn answer(request: Request, run: u8) -> Bytes {
    answer_to(KEY, request, run)
}

fn answer_to(key: Key, request: Request, run: u8) -> Bytes {
    if request.code == Code::Sum {
        return format!("{}\n", key.in_one()).into();
    }
    let payload: serde_json::Value =
        serde_json::from_slice(&request.payload(key, &crate::request::Guest::assemble().expect("a module")))
            .expect("JSON");
    let mut stdout = STANDARD.decode(payload["stdin"].as_str().expect("it has input")).expect("base64");
    stdout.extend([run; RANDOM_BYTES]);
    json!({ "id": payload["id"], "status": "ok", "exit_code": 0, "stdout": STANDARD.encode(stdout) })
        .to_string()
        .into()
}

fn message() -> Bytes {
    Bytes::from(format!("{KEY} and what it says"))
}

#[test]
fn what_is_acknowledged_and_answered_is_right() {
    for request in [SUM, ANONYMOUS, IDENTIFIED] {
        let mut story = Story::new(Promise::Acknowledged);
        story.sent(request);
        assert_eq!((story.ledger.open(), story.ledger.open_requests(DEVICE)), (1, 1));
        story.acknowledged();
        story.answered(DEVICE, &answer(request, 1));
        assert_eq!((story.ledger.open(), story.ledger.settled()), (0, 1));
        assert_eq!(story.end(), []);
    }
}

#[test]
fn an_answer_before_its_acknowledgement_is_right() {
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(ANONYMOUS);
    story.answered(DEVICE, &answer(ANONYMOUS, 1));
    assert_eq!(story.ledger.open(), 1, "the acknowledgement is owed");
    story.acknowledged();
    assert_eq!(story.ledger.open(), 0);
    assert_eq!(story.end(), []);
}

#[test]
fn an_acknowledged_request_that_is_not_answered_is_lost() {
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(SUM);
    story.acknowledged();
    story.killed();
    let at = story.tick();
    story.ledger.give_up(at);
    let [lost] = story.ledger.contradictions() else { panic!("{:?}", story.ledger.contradictions()) };
    assert_eq!(lost.fault, Fault::Lost);
    let told = lost.to_string();
    for part in [
        "c1-17",
        "0.001 s: sum without an id sent at QoS 1",
        "0.002 s: acknowledged",
        "0.003 s: the gateway killed",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(story.ledger.open(), 0, "it is told once");
}

#[test]
fn what_is_never_acknowledged_is_found() {
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(SUM);
    assert_eq!(story.end(), [Fault::Unacknowledged]);
}

#[test]
fn a_request_at_qos_0_is_owed_an_answer_alone() {
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(REPEATED);
    story.sent_again();
    story.answered(DEVICE, &answer(REPEATED, 1));
    assert_eq!(story.end(), []);
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(REPEATED);
    assert_eq!(story.end(), [Fault::Unanswered]);
}

#[test]
fn an_id_is_answered_with_the_same_bytes() {
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(IDENTIFIED);
    story.acknowledged();
    story.answered(DEVICE, &answer(IDENTIFIED, 1));
    story.killed();
    story.sent_again();
    assert_eq!(story.ledger.open(), 1, "a repetition is owed its answer");
    story.acknowledged();
    story.answered(DEVICE, &answer(IDENTIFIED, 1));
    assert_eq!(story.ledger.open(), 0);
    story.answered(DEVICE, &answer(IDENTIFIED, 2));
    assert_eq!(story.end(), [Fault::Changed]);
}

#[test]
fn an_id_is_remembered_after_it_is_forgotten() {
    for (run, found) in [(1, vec![]), (2, vec![Fault::Changed])] {
        let mut story = Story::new(Promise::Acknowledged);
        story.sent(IDENTIFIED);
        story.acknowledged();
        story.answered(DEVICE, &answer(IDENTIFIED, 1));
        story.ledger.begin_round(REMEMBERED_ROUNDS + 1);
        assert!(story.ledger.request(KEY).is_none(), "it is forgotten");
        story.answered(DEVICE, &answer(IDENTIFIED, run));
        assert_eq!(story.end(), found);
    }
}

#[test]
fn without_an_id_each_publication_and_each_crash_can_run_once() {
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(ANONYMOUS);
    story.answered(DEVICE, &answer(ANONYMOUS, 1));
    // Delivered again, and run again after a crash.
    story.answered(DEVICE, &answer(ANONYMOUS, 1));
    story.killed();
    story.acknowledged();
    story.answered(DEVICE, &answer(ANONYMOUS, 2));
    assert!(story.ledger.contradictions().is_empty());
    story.answered(DEVICE, &answer(ANONYMOUS, 3));
    assert_eq!(story.end(), [Fault::RunTooOften]);
}

#[test]
fn an_answer_to_another_client_is_found() {
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(ANONYMOUS);
    story.acknowledged();
    story.answered(OTHER, &answer(ANONYMOUS, 1));
    assert_eq!(story.end(), [Fault::Misdirected, Fault::Lost]);
}

#[test]
fn an_answer_that_nobody_asked_for_is_found() {
    for payload in [answer(ANONYMOUS, 1), Bytes::from("hello\n"), Bytes::from("{")] {
        let mut story = Story::new(Promise::Acknowledged);
        story.answered(DEVICE, &payload);
        assert_eq!(story.end(), [Fault::Unasked]);
    }
}

#[test]
fn a_wrong_answer_is_found() {
    let mut torn = answer(ANONYMOUS, 1).to_vec();
    // Within the padding of the input, behind the key.
    let text = String::from_utf8(torn.clone()).expect("JSON");
    let at = text.find("\"stdout\":\"").expect("it has output") + 30;
    torn[at] = if torn[at] == b'A' { b'B' } else { b'A' };
    let another = answer(IDENTIFIED, 1);
    for payload in [Bytes::from(torn), another] {
        let mut story = Story::new(Promise::Acknowledged);
        story.sent(ANONYMOUS);
        story.acknowledged();
        story.answered(DEVICE, &payload);
        assert_eq!(story.end(), [Fault::Wrong], "{payload:?}");
    }
}

#[test]
fn correlation_data_comes_back() {
    for (data, found) in [(Some(KEY.to_string()), vec![]), (None, vec![Fault::Wrong])] {
        let mut story = Story::new(Promise::Acknowledged);
        story.ledger.add_device(DEVICE, true);
        story.sent(SUM);
        story.acknowledged();
        let at = story.tick();
        story.ledger.answered(at, DEVICE, data.as_deref().map(str::as_bytes), &answer(SUM, 1));
        assert_eq!(story.end(), found);
    }
}

#[test]
fn an_error_is_found() {
    let with_id = json!({ "id": KEY.to_string(), "status": "error",
        "error": { "kind": "internal", "message": "set aside" } });
    for payload in [Bytes::from(with_id.to_string()), Bytes::from("error: busy: full")] {
        let mut story = Story::new(Promise::Acknowledged);
        story.sent(IDENTIFIED);
        story.acknowledged();
        story.answered(DEVICE, &payload);
        assert!(story.end().contains(&Fault::Refused));
    }
}

#[test]
fn a_publication_that_is_refused_is_found() {
    let mut story = Story::new(Promise::Acknowledged);
    story.sent(SUM);
    let at = story.tick();
    story.ledger.acknowledged(at, KEY, Some(0x97));
    story.answered(DEVICE, &answer(SUM, 1));
    assert_eq!(story.end(), [Fault::Refused]);
}

#[test]
fn a_message_reaches_every_listener() {
    let mut story = Story::with_listeners();
    story.published(1);
    story.acknowledged();
    story.received(LISTENER, &message());
    assert_eq!(story.ledger.open(), 1);
    story.received(EXACT_LISTENER, &message());
    assert_eq!(story.ledger.open(), 0);
    // At QoS 1, twice is right.
    story.received(EXACT_LISTENER, &message());
    assert_eq!(story.end(), []);

    let mut story = Story::with_listeners();
    story.published(1);
    story.acknowledged();
    story.received(LISTENER, &message());
    let at = story.tick();
    story.ledger.give_up(at);
    let [undelivered] = story.ledger.contradictions() else { panic!("it is found") };
    assert_eq!(undelivered.fault, Fault::Undelivered);
    assert!(undelivered.what.ends_with("to client 9"), "{}", undelivered.what);
}

#[test]
fn at_qos_2_a_message_comes_once() {
    for late in [false, true] {
        let mut story = Story::with_listeners();
        story.published(2);
        story.acknowledged();
        for client in [LISTENER, LISTENER, EXACT_LISTENER] {
            story.received(client, &message());
        }
        assert!(story.ledger.contradictions().is_empty());
        if late {
            story.ledger.begin_round(REMEMBERED_ROUNDS + 1);
        }
        story.received(LISTENER, &message());
        story.received(EXACT_LISTENER, &message());
        assert_eq!(story.end(), [Fault::Twice]);
    }
}

#[test]
fn a_message_that_is_another_is_found() {
    let mut story = Story::with_listeners();
    story.published(1);
    story.acknowledged();
    for client in [LISTENER, EXACT_LISTENER] {
        story.received(client, &Bytes::from(format!("{KEY} and what it does not say")));
    }
    story.received(LISTENER, &Bytes::from("c1-18 never sent"));
    story.received(LISTENER, &Bytes::from("gibberish"));
    assert_eq!(story.end(), [Fault::Wrong, Fault::Wrong, Fault::Unasked, Fault::Unasked]);
}

#[test]
fn a_session_is_there_again() {
    let mut story = Story::new(Promise::Acknowledged);
    story.connected(false);
    story.killed();
    // Nothing was subscribed to yet.
    story.connected(false);
    story.subscribed();
    story.connected(true);
    assert!(story.ledger.contradictions().is_empty());
    story.connected(false);
    story.connected(false);
    assert_eq!(story.end(), [Fault::SessionLost]);

    let mut story = Story::new(Promise::Ids);
    story.subscribed();
    story.connected(false);
    assert_eq!(story.end(), []);
}

#[test]
fn the_value_that_was_acknowledged_last_is_retained() {
    let found = |value: Option<&'static str>| -> BTreeMap<String, Bytes> {
        value.map(|value| ("state/1".to_owned(), Bytes::from(value))).into_iter().collect()
    };
    for (value, faults) in
        [(Some("c1-2"), vec![]), (Some("c1-1"), vec![Fault::NotRetained]), (None, vec![Fault::NotRetained])]
    {
        let mut story = Story::new(Promise::Acknowledged);
        for (number, value) in [(1, "c1-1"), (2, "c1-2")] {
            story.value(number, value);
            let at = story.tick();
            story.ledger.acknowledged(at, Key { client: DEVICE, number }, None);
        }
        let at = story.tick();
        story.ledger.found_retained(at, &found(value));
        assert_eq!(story.end(), faults, "{value:?}");
    }
    // A value that was taken back.
    for (value, faults) in [(None, vec![]), (Some("c1-1"), vec![Fault::NotRetained])] {
        let mut story = Story::new(Promise::Acknowledged);
        for (number, value) in [(1, "c1-1"), (2, "")] {
            story.value(number, value);
            let at = story.tick();
            story.ledger.acknowledged(at, Key { client: DEVICE, number }, None);
        }
        assert!(story.ledger.retained().is_empty());
        let at = story.tick();
        story.ledger.found_retained(at, &found(value));
        assert_eq!(story.end(), faults, "{value:?}");
    }
}

#[test]
fn where_ids_alone_are_promised_an_unanswered_one_is_found() {
    let mut story = Story::new(Promise::Ids);
    story.sent(IDENTIFIED);
    story.acknowledged();
    story.killed();
    story.sent_again();
    story.acknowledged();
    assert_eq!(story.end(), [Fault::Unanswered]);
}

#[test]
fn what_is_observed_beside_all_messages_is_told_with_the_last_crash() {
    let mut story = Story::new(Promise::Acknowledged);
    story.killed();
    let at = story.tick();
    story.ledger.observed(at, Fault::Leak, "a process".to_owned());
    assert!(story.ledger.contradictions()[0].to_string().contains("the gateway killed"));
    assert_eq!(story.end(), [Fault::Leak]);
}
