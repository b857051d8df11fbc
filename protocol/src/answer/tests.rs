//! Tests of the answer forms: what each looks like on the wire.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn exited(code: i32, stdout: &'static str) -> Answer {
    Answer {
        id: Some("req-1".try_into().unwrap()),
        outcome: Outcome::Exited(code),
        stdout: stdout.into(),
        content_range: None,
        stderr: "\nwarning\r\nmore\n".into(),
        fuel: 12,
        run_us: 34,
        queue_us: 56,
    }
}

fn failed(kind: ErrorKind, message: &str) -> Answer {
    Answer { outcome: Outcome::Failed(WireError::new(kind, message)), ..exited(0, "partial") }
}

fn trapped(message: &str) -> Answer {
    Answer { stdout: Bytes::new(), ..failed(ErrorKind::Trap, message) }
}

fn silent(answer: Answer) -> Answer {
    Answer { stderr: Bytes::new(), ..answer }
}

fn property<'p>(user_properties: &'p [(String, String)], name: &str) -> Option<&'p str> {
    user_properties.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

#[test]
fn the_line_form_is_stdout_or_one_error_line() {
    for (answer, payload, status, exit_code, error_kind) in [
        (exited(0, "12\n"), "12\n", "ok", Some("0"), None),
        (exited(0, ""), "", "ok", Some("0"), None),
        (exited(3, "half\n"), "half\n", "exit", Some("3"), None),
        (exited(3, ""), "error: exit: program exited with code 3: warning", "exit", Some("3"), Some("exit")),
        (silent(exited(3, "")), "error: exit: program exited with code 3", "exit", Some("3"), Some("exit")),
        (failed(ErrorKind::Fuel, "a\nb"), "error: fuel: a b", "error", None, Some("fuel")),
        // A trap after something was printed: that is dropped, and explains more than stderr does.
        (failed(ErrorKind::Trap, "abort"), "error: trap: abort", "error", None, Some("trap")),
        (trapped("abort"), "error: trap: abort: warning", "error", None, Some("trap")),
    ] {
        let (written, user_properties) = encode(&answer, AnswerForm::Line);
        assert_eq!(written, payload);
        assert_eq!(property(&user_properties, "status"), Some(status));
        assert_eq!(property(&user_properties, "exit-code"), exit_code);
        assert_eq!(property(&user_properties, "error-kind"), error_kind);
        assert_eq!(property(&user_properties, "fuel"), Some("12"));
        assert_eq!(property(&user_properties, "run-us"), Some("34"));
        assert_eq!(property(&user_properties, "id"), Some("req-1"));
    }
}

/// A long message and a long line share the room; neither takes what the other does not need.
#[test]
fn a_message_and_what_stderr_says_share_the_line() {
    let line = |message: &str, stderr: String| {
        let (written, _) = encode(&Answer { stderr: stderr.into(), ..trapped(message) }, AnswerForm::Line);
        String::from_utf8(written.to_vec()).unwrap()
    };
    let (long, half) = ("m".repeat(300), "s".repeat(92));
    assert_eq!(line("short", "s".repeat(300)), format!("error: trap: short: {}", "s".repeat(180)));
    assert_eq!(line(&long, "said".to_owned()), format!("error: trap: {}: said", "m".repeat(181)));
    assert_eq!(line(&long, "s".repeat(300)), format!("error: trap: {}: {half}", "m".repeat(93)));
    assert_eq!(line(&long, " \n\t\n".to_owned()), format!("error: trap: {}", "m".repeat(187)));
    // Not UTF-8, and control characters.
    assert_eq!(line("why", "\x1b[31mred\tä".to_owned()), "error: trap: why: ?[31mred ä");
}

#[test]
fn the_envelope_says_everything() {
    let (payload, user_properties) = encode(&silent(exited(3, "a")), AnswerForm::Json);
    assert_eq!(
        payload,
        r#"{"id":"req-1","status":"exit","exit_code":3,"stdout":"YQ==","stderr":"","error":null,"fuel":12,"run_us":34,"queue_us":56}"#
    );
    assert_eq!(property(&user_properties, "status"), Some("exit"));
    let (payload, user_properties) =
        encode(&Answer { stderr: "warning".into(), ..exited(-3, "a") }, AnswerForm::Cbor);
    assert_eq!(
        payload,
        &b"\xd9\xd9\xf7\xa9\x62id\x65req-1\x66status\x64exit\x69exit_code\x22\x66stdout\x41a\x66stderr\x47warning\
           \x65error\xf6\x64fuel\x0c\x66run_us\x18\x22\x68queue_us\x18\x38"[..]
    );
    assert_eq!(property(&user_properties, "status"), Some("exit"));
    let rejected = Rejected {
        form: AnswerForm::Json,
        id: None,
        error: WireError::malformed("args[2]", "expected text"),
    };
    let (payload, _) = encode(&rejected.into(), AnswerForm::Json);
    assert_eq!(
        payload,
        r#"{"id":null,"status":"error","exit_code":null,"stdout":"","stderr":"","error":{"kind":"malformed","message":"args[2]: expected text"},"fuel":0,"run_us":0,"queue_us":0}"#
    );
}

#[test]
fn a_part_of_stdout_says_where_it_is_in_the_whole() {
    let whole = exited(0, "0123456789");
    for (offset, length, part) in [
        (0, None, "0123456789"),
        (0, Some(4), "0123"),
        (4, Some(4), "4567"),
        (8, Some(4), "89"),
        (8, None, "89"),
        (3, Some(0), ""),
        (10, Some(4), ""),
        (u64::MAX, Some(u64::MAX), ""),
        (1, Some(u64::MAX), "123456789"),
    ] {
        let answer = whole.clone().with_range(StdoutRange { offset, length });
        assert_eq!(answer.stdout, part, "{offset} {length:?}");
        assert_eq!(answer.content_range, Some(ContentRange { offset, total: 10 }));
    }
    let part = silent(whole.with_range(StdoutRange { offset: 4, length: Some(3) }));
    assert_eq!(
        encode(&part, AnswerForm::Json).0,
        r#"{"id":"req-1","status":"ok","exit_code":0,"stdout":"NDU2","stderr":"","error":null,"fuel":12,"run_us":34,"queue_us":56,"stdout_offset":4,"stdout_total":10}"#
    );
    // A failed run may have printed something, a refused request has not.
    let failed = failed(ErrorKind::Fuel, "").with_range(StdoutRange { offset: 2, length: Some(3) });
    assert_eq!(
        (&failed.stdout[..], failed.content_range),
        (&b"rti"[..], Some(ContentRange { offset: 2, total: 7 }))
    );
}

/// An empty part of what a program printed is no error line, and neither is what it wrote to stderr beside it.
#[test]
fn an_empty_part_is_not_taken_for_silence() {
    let beyond = StdoutRange { offset: 100, length: None };
    assert_eq!(encode(&exited(3, "half").with_range(beyond), AnswerForm::Line).0, "");
    let trapped = failed(ErrorKind::Trap, "abort").with_range(beyond);
    assert_eq!(encode(&trapped, AnswerForm::Line).0, "error: trap: abort");
    let silent = exited(3, "").with_range(beyond);
    assert_eq!(encode(&silent, AnswerForm::Line).0, "error: exit: program exited with code 3: warning");
}

#[test]
fn without_user_properties_an_error_line_is_recognised() {
    let read = |payload: &'static str| decode(AnswerForm::Line, payload.into(), &[]).unwrap();
    assert_eq!(read("12\n").outcome, Outcome::Exited(0));
    assert_eq!(read("12\n").stdout, "12\n");
    assert_eq!(read("error: exit: program exited with code 3").outcome, Outcome::Exited(3));
    let explained = read("error: exit: program exited with code -3: a: b");
    assert_eq!((explained.outcome, explained.stderr), (Outcome::Exited(-3), "a: b".into()));
    assert_eq!(
        read("error: busy: again in 2 s").outcome,
        Outcome::Failed(WireError::new(ErrorKind::Busy, "again in 2 s"))
    );
    for printed in ["error: none of ours", "error: nothing: x", "error:", "error: busy"] {
        assert_eq!(read(printed).outcome, Outcome::Exited(0), "{printed}");
    }
    // With user properties, what a program prints is never taken for an error.
    let (payload, user_properties) = encode(&exited(0, "error: busy: no"), AnswerForm::Line);
    assert_eq!(decode(AnswerForm::Line, payload, &user_properties).unwrap().stdout, "error: busy: no");
}

#[test]
fn an_id_that_mqtt_cannot_carry_stays_in_the_envelope() {
    let answer = Answer { id: Some("a\0b".try_into().unwrap()), ..exited(0, "") };
    let (payload, user_properties) = encode(&answer, AnswerForm::Json);
    assert_eq!(property(&user_properties, "id"), None);
    assert_eq!(decode(AnswerForm::Json, payload, &user_properties), Ok(answer));
}

#[test]
fn answers_that_are_none_are_refused_by_field() {
    let good = r#"{"id":null,"status":"ok","exit_code":0,"stdout":"","stderr":"","error":null,"fuel":0,"run_us":0,"queue_us":0,"later":1}"#;
    assert!(decode(AnswerForm::Json, good.into(), &[]).is_ok());
    for (from, to, message) in [
        (r#""ok""#, r#""fine""#, "status: "),
        (r#""exit_code":0"#, r#""exit_code":null"#, "exit_code: "),
        (r#""ok""#, r#""error""#, "error: "),
        (r#""stdout":"""#, r#""stdout":"?""#, "stdout: "),
        (r#""id":null"#, r#""id":"""#, "id: "),
        ("{", "", "envelope: "),
    ] {
        let error = decode(AnswerForm::Json, good.replace(from, to).into(), &[]).unwrap_err();
        assert!(error.message.starts_with(message), "{error}");
    }
    for (pairs, message) in [
        (&[("status", "fine")][..], "status: "),
        (&[("status", "ok")], "exit-code: "),
        (&[("status", "ok"), ("exit-code", "x")], "exit-code: "),
        (&[("status", "error")], "error-kind: "),
        (&[("status", "error"), ("error-kind", "x")], "error-kind: "),
    ] {
        let given: UserProperties = pairs.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
        let error = decode(AnswerForm::Line, Bytes::new(), &given).unwrap_err();
        assert!(error.message.starts_with(message), "{error}");
    }
}

#[test]
fn an_answer_too_large_for_its_receiver_is_replaced() {
    let answer = Answer { stdout: vec![b'x'; 5000].into(), ..exited(0, "") };
    let within = |form, room, with_properties| encode_within(&answer, form, room, with_properties);
    // 3.1.1, a packet of 256 bytes.
    let (payload, user_properties) = within(AnswerForm::Line, 230, false).unwrap();
    assert_eq!(payload, "error: output: the answer has 5000 bytes, its receiver takes 230");
    assert!(user_properties.is_empty());
    // MQTT 5: the terse error keeps its properties, then loses them.
    let (payload, user_properties) = within(AnswerForm::Line, 130, true).unwrap();
    assert_eq!(payload, "error: output: too large");
    assert_eq!(property(&user_properties, "error-kind"), Some("output"));
    let (payload, user_properties) = within(AnswerForm::Line, 24, true).unwrap();
    assert_eq!(payload, "error: output: too large");
    assert!(user_properties.is_empty());
    assert_eq!(within(AnswerForm::Line, 23, true), None);
    let (payload, _) = within(AnswerForm::Json, 300, false).unwrap();
    let replaced = decode(AnswerForm::Json, payload, &[]).unwrap();
    assert!(matches!(replaced.outcome, Outcome::Failed(error) if error.kind == ErrorKind::Output));
    assert_eq!((replaced.id, replaced.fuel), (answer.id.clone(), answer.fuel));
    // An error line is not replaced as long as it fits without what stderr says.
    let (payload, _) = encode_within(&exited(3, ""), AnswerForm::Line, 40, false).unwrap();
    assert_eq!(payload, "error: exit: program exited with code 3");
    // What fits is left alone.
    assert_eq!(within(AnswerForm::Line, 5000, false).unwrap().0, answer.stdout);
}

fn answers() -> impl Strategy<Value = Answer> {
    let message = "[^\\p{Cc}\u{2028}\u{2029}]{0,60}";
    let outcome = prop_oneof![
        any::<i32>().prop_map(Outcome::Exited),
        (0..ErrorKind::ALL.len(), message)
            .prop_map(|(kind, message)| Outcome::Failed(WireError::new(ErrorKind::ALL[kind], message))),
    ];
    let bytes = || vec(any::<u8>(), 0..64).prop_map(Bytes::from);
    let id = option::of("\\PC{1,16}".prop_map(|id| RequestId::try_from(id.as_str()).unwrap()));
    let range = any::<[u64; 2]>().prop_map(|[offset, total]| ContentRange { offset, total });
    (id, outcome, bytes(), option::of(range), bytes(), any::<[u64; 3]>()).prop_map(
        |(id, outcome, stdout, content_range, stderr, [fuel, run_us, queue_us])| Answer {
            id,
            outcome,
            stdout,
            content_range,
            stderr,
            fuel,
            run_us,
            queue_us,
        },
    )
}

proptest! {
    #[test]
    fn an_envelope_is_read_back(answer in answers()) {
        for form in [AnswerForm::Json, AnswerForm::Cbor] {
            let (payload, user_properties) = encode(&answer, form);
            prop_assert_eq!(decode(form, payload, &user_properties), Ok(answer.clone()));
        }
    }

    /// The line form carries of stderr its first line at the most, no time in the queue, no stdout of a failed run and
    /// no place of a part, and cuts messages.
    #[test]
    fn a_line_is_read_back_but_for_what_it_drops(answer in answers()) {
        let (payload, user_properties) = encode(&answer, AnswerForm::Line);
        let read = decode(AnswerForm::Line, payload.clone(), &user_properties).unwrap();
        let mut expected =
            Answer { stderr: read.stderr.clone(), queue_us: 0, content_range: None, ..answer };
        if let Outcome::Failed(error) = &mut expected.outcome {
            expected.stdout = Bytes::new();
            let start = format!("error: {}: ", error.kind).len();
            error.message = String::from_utf8(payload.to_vec()).unwrap().split_off(start);
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn what_is_said_to_fit_fits(answer in answers(), room in 0..400usize, with_properties: bool, form in 0..3usize) {
        let form = [AnswerForm::Line, AnswerForm::Json, AnswerForm::Cbor][form];
        if let Some((payload, user_properties)) = encode_within(&answer, form, room, with_properties) {
            prop_assert!(size(&payload, &user_properties) <= room);
            prop_assert!(with_properties || user_properties.is_empty());
        }
    }

    #[test]
    fn any_bytes_are_an_answer_or_refused(payload in vec(any::<u8>(), 0..64)) {
        for form in [AnswerForm::Line, AnswerForm::Json, AnswerForm::Cbor] {
            let _ = decode(form, payload.clone().into(), &[]);
        }
        let tagged = [&crate::envelope::CBOR_TAG[..], &payload].concat();
        let _ = decode(AnswerForm::Cbor, tagged.into(), &[]);
    }
}
