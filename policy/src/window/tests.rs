//! Requests and answers in the orders that brokers cause.

use super::*;

/// Answers are named by their topics.
type Window = super::Window<&'static str>;

const WEIGHT: usize = 100;

fn connected() -> Window {
    let mut window = Window::default();
    window.connected(false);
    window
}

fn receive(window: &mut Window, packet_id: u16) -> Receipt {
    match window.received(packet_id, false, u64::from(packet_id)) {
        Received::New(receipt) => receipt,
        Received::Again => panic!("seen before"),
    }
}

/// Publishes what waits, as packets from `first` on; the topics in order.
fn publish(window: &mut Window, first: u16) -> Vec<&'static str> {
    let mut topics = Vec::new();
    while let Some(answer) = window.next_answer(100) {
        topics.push(*answer);
        window.handed_over();
        window.published(first + topics.len() as u16 - 1);
    }
    topics
}

#[test]
fn a_request_is_acknowledged_once_the_broker_has_its_answer() {
    let mut window = connected();
    let receipt = receive(&mut window, 7);
    assert!(window.answer(Some(receipt), "a", WEIGHT));
    assert_eq!(publish(&mut window, 1), ["a"]);
    assert_eq!(window.next_acknowledgement(), None);
    window.confirmed(1);
    assert_eq!(window.next_acknowledgement(), Some(7));
    assert!(!window.is_settled());
    window.acknowledged();
    assert!(window.is_settled());
}

#[test]
fn an_answer_at_qos_0_is_done_when_it_is_written() {
    let mut window = connected();
    let receipt = receive(&mut window, 7);
    assert!(window.answer(Some(receipt), "a", WEIGHT));
    assert_eq!(publish(&mut window, 0), ["a"]);
    assert_eq!(window.next_acknowledgement(), Some(7));
    window.acknowledged();
    assert!(window.is_settled());
}

#[test]
fn answers_are_limited_by_the_brokers_window() {
    let mut window = connected();
    for topic in ["a", "b"] {
        assert!(window.answer(None, topic, WEIGHT));
    }
    assert!(window.next_answer(1).is_some());
    window.handed_over();
    assert!(window.next_answer(1).is_none(), "handed over counts");
    window.published(1);
    assert!(window.next_answer(1).is_none(), "on the wire counts");
    window.confirmed(1);
    assert!(window.next_answer(1).is_some());
}

#[test]
fn unconfirmed_answers_are_published_again_in_order() {
    let mut window = connected();
    for topic in ["a", "b", "c", "d"] {
        assert!(window.answer(None, topic, WEIGHT));
    }
    for packet_id in [1, 2] {
        window.handed_over();
        window.published(packet_id);
    }
    window.handed_over();
    window.disconnected();
    window.connected(true);
    assert_eq!(publish(&mut window, 1), ["a", "b", "c", "d"]);
}

#[test]
fn a_request_that_runs_is_not_run_again() {
    let mut window = connected();
    let receipt = receive(&mut window, 7);
    window.disconnected();
    window.connected(true);
    assert_eq!(window.received(7, true, 7), Received::Again);
    assert!(window.answer(Some(receipt), "a", WEIGHT));
    publish(&mut window, 1);
    window.confirmed(1);
    assert_eq!(window.next_acknowledgement(), Some(7));
}

#[test]
fn a_request_answered_while_the_connection_was_away_is_acknowledged_when_it_comes_again() {
    let mut window = connected();
    let receipt = receive(&mut window, 7);
    window.disconnected();
    assert!(window.answer(Some(receipt), "a", WEIGHT));
    window.connected(true);
    publish(&mut window, 1);
    window.confirmed(1);
    assert_eq!(window.next_acknowledgement(), None, "not delivered on this connection");
    assert_eq!(window.received(7, true, 7), Received::Again);
    assert_eq!(window.next_acknowledgement(), Some(7));
}

#[test]
fn a_lost_acknowledgement_is_sent_again() {
    let mut window = connected();
    let receipt = receive(&mut window, 7);
    window.settle(receipt);
    window.acknowledged();
    window.disconnected();
    window.connected(true);
    assert_eq!(window.received(7, true, 7), Received::Again);
    assert_eq!(window.next_acknowledgement(), Some(7));
}

#[test]
fn another_request_under_a_known_packet_identifier_is_new() {
    let mut window = connected();
    let old = receive(&mut window, 7);
    window.disconnected();
    window.connected(true);
    let Received::New(other) = window.received(7, true, 8) else { panic!("other content") };
    window.settle(old);
    assert_eq!(window.next_acknowledgement(), None, "the old one is gone");
    window.settle(other);
    assert_eq!(window.next_acknowledgement(), Some(7));
    window.acknowledged();
    assert!(
        matches!(window.received(7, false, 8), Received::New(_)),
        "not DUP: the identifier is used again"
    );
}

#[test]
fn without_the_session_packet_identifiers_mean_nothing() {
    let mut window = connected();
    let receipt = receive(&mut window, 7);
    window.disconnected();
    window.connected(false);
    assert!(window.answer(Some(receipt), "a", WEIGHT));
    assert_eq!(publish(&mut window, 1), ["a"], "the answer is still wanted");
    window.confirmed(1);
    assert_eq!(window.next_acknowledgement(), None);
    assert!(matches!(window.received(7, true, 7), Received::New(_)));
}

#[test]
fn what_the_gateway_gave_up_is_run_when_it_comes_again() {
    let mut window = connected();
    let receipt = receive(&mut window, 7);
    window.release(receipt);
    window.disconnected();
    window.connected(true);
    assert!(matches!(window.received(7, true, 7), Received::New(_)));
}

#[test]
fn too_many_waiting_answers_are_dropped_and_their_requests_forgotten() {
    let mut window = connected();
    for _ in 0..MAX_WAITING {
        assert!(window.answer(None, "a", WEIGHT));
    }
    let receipt = receive(&mut window, 7);
    assert!(!window.answer(Some(receipt), "b", WEIGHT));
    window.disconnected();
    window.connected(true);
    assert!(matches!(window.received(7, true, 7), Received::New(_)));
}

#[test]
fn requests_that_were_given_up_come_again_with_a_new_connection_once_their_answers_have_room() {
    let mut window = connected();
    let (first, second) = (receive(&mut window, 1), receive(&mut window, 2));
    assert!(window.answer(Some(first), "a", MAX_WAITING_BYTES));
    assert!(!window.answer(Some(second), "b", WEIGHT));
    assert_eq!(window.to_be_delivered_again(), 0, "there is no room for its answer yet");
    publish(&mut window, 1);
    assert_eq!(window.to_be_delivered_again(), 1);
    window.disconnected();
    window.connected(true);
    assert_eq!(window.to_be_delivered_again(), 0);
    assert!(matches!(window.received(2, true, 2), Received::New(_)));
    // One of the connection before has no place on this one.
    window.release(first);
    assert_eq!(window.to_be_delivered_again(), 0);
}
