//! Tests of the request forms: what decodes to what, what is refused, and the bounds of decoding.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::envelope::{Fields, MAX_VALUES, Shape, Value};
use crate::error::ErrorKind;

fn properties(pairs: &[(&str, &str)]) -> UserProperties {
    pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn decode(
    kind: RequestKind,
    payload: Bytes,
    user_properties: &[(String, String)],
) -> Result<Request, Rejected> {
    super::decode(kind, payload, user_properties, &Bounds::NONE)
}

fn decode_text(kind: RequestKind, payload: &str) -> Result<Request, Rejected> {
    decode(kind, Bytes::copy_from_slice(payload.as_bytes()), &[])
}

#[test]
fn legacy_args_are_the_default_programs() {
    for (payload, args) in [
        ("5 7", &["5", "7"][..]),
        (" 5\t7\r\n", &["5", "7"]),
        ("", &[]),
        ("größe \u{2003}2", &["größe", "2"]),
        ("a----b", &["a----b"]),
    ] {
        let request = decode_text(RequestKind::LocalCode, payload).unwrap();
        assert_eq!(request.form, Form::LegacyArgs);
        assert_eq!(request.code, Code::DefaultProgram);
        assert_eq!(request.args, args);
        assert_eq!(request.answer_form(), AnswerForm::Line);
    }
    let given =
        properties(&[("id", "a"), ("fuel", "7"), ("memory", "8"), ("timeout-ms", "9"), ("arg", "no")]);
    let request = decode(RequestKind::LocalCode, "5 7".into(), &given).unwrap();
    assert_eq!(request.id, Some("a".try_into().unwrap()));
    assert_eq!(
        request.limits,
        RequestLimits { fuel: Some(7), memory: Some(8), timeout: Some(Duration::from_millis(9)) }
    );
    assert_eq!(request.args, ["5", "7"]);
}

#[test]
fn a_raw_module_takes_the_rest_from_user_properties() {
    let given = properties(&[
        ("arg", "-x"),
        ("env.A", "1"),
        ("unknown", "ignored"),
        ("unknown", "twice"),
        ("arg", ""),
        ("env.B", "="),
        ("memory", "18446744073709551615"),
    ]);
    let payload = Bytes::from_static(b"\0asm\x01\0\0\0\xff");
    let request = decode(RequestKind::InputCode, payload.clone(), &given).unwrap();
    assert_eq!(request.form, Form::RawModule);
    assert_eq!(request.code, Code::Module(payload));
    assert_eq!(request.args, ["-x", ""]);
    assert_eq!(request.env, properties(&[("A", "1"), ("B", "=")]));
    assert_eq!(request.limits.memory, Some(u64::MAX));
    assert_eq!(request.answer_form(), AnswerForm::Line);
}

#[test]
fn an_envelope_carries_everything() {
    let request = decode_text(
        RequestKind::InputCode,
        "\x0c\r\n\t {\"id\":\"\\u0061\",\"module\":\"AGFzbQ==\",\"args\":[\"a\",\"\"],\"env\":{\"B\":\"2\",\"A\":\"1\"},\
         \"stdin\":\"/+8=\",\"fuel\":0,\"memory\":9007199254740993,\"timeout_ms\":1500,\"reply\":\"stdout\"} \n",
    )
    .unwrap();
    assert_eq!(
        request,
        Request {
            form: Form::Json,
            id: Some("a".try_into().unwrap()),
            code: Code::Module(Bytes::from_static(&WASM_MAGIC)),
            args: vec!["a".into(), String::new()],
            env: properties(&[("B", "2"), ("A", "1")]),
            stdin: Bytes::from_static(b"\xff\xef"),
            limits: RequestLimits {
                fuel: Some(0),
                memory: Some(9_007_199_254_740_993),
                timeout: Some(Duration::from_millis(1500)),
            },
            reply: ReplyForm::Stdout,
            stdout_range: None,
        }
    );
    assert_eq!(request.answer_form(), AnswerForm::Line);
    let program = decode_text(RequestKind::InputCode, r#"{"program":"add","reply":"envelope"}"#).unwrap();
    assert_eq!(program.code, Code::Program("add".into()));
    assert_eq!(program.answer_form(), AnswerForm::Json);
}

#[test]
fn a_part_of_stdout_is_asked_for_by_offset_or_length_or_both() {
    for (fields, offset, length) in [
        (r#""stdout_offset":0"#, 0, None),
        (r#""stdout_length":0"#, 0, Some(0)),
        (r#""stdout_length":100,"stdout_offset":18446744073709551615"#, u64::MAX, Some(100)),
    ] {
        let request = decode_text(RequestKind::LocalCode, &format!(r#"{{"program":"a",{fields}}}"#)).unwrap();
        assert_eq!(request.stdout_range, Some(StdoutRange { offset, length }), "{fields}");
    }
}

/// `modules` stands in place of what is to run: each action with the one field that it needs.
#[test]
fn an_envelope_about_modules_has_what_its_action_needs_and_nothing_to_run() {
    let digest = Digest([7; 32]);
    let remove = format!(r#"{{"modules":"remove","digest":"{digest}"}}"#);
    for (kind, payload, expected) in [
        (RequestKind::LocalCode, r#"{"modules":"list"}"#, ModulesRequest::List),
        (RequestKind::InputCode, r#"{"modules":"list","fuel":1,"timeout_ms":2}"#, ModulesRequest::List),
        (RequestKind::LocalCode, &remove, ModulesRequest::Remove(digest)),
        (RequestKind::InputCode, &remove, ModulesRequest::Remove(digest)),
        (
            RequestKind::InputCode,
            r#"{"module":"AGFzbQ==","modules":"store","args":[]}"#,
            ModulesRequest::Store(Bytes::from_static(&WASM_MAGIC)),
        ),
    ] {
        assert_eq!(decode_text(kind, payload).unwrap().code, Code::Modules(expected), "{payload}");
    }
    for (payload, problem) in [
        (r#"{"modules":"List"}"#, "modules: expected `list`, `store` or `remove`, got another text"),
        (r#"{"modules":7}"#, "modules: expected text, got a number"),
        (r#"{"modules":"list","modules":"list"}"#, "modules: given twice"),
        (
            r#"{"modules":"list","program":"add"}"#,
            "modules: expected `list` with no field that says what to run",
        ),
        (
            r#"{"modules":"store"}"#,
            "modules: expected `store` with `module` and no other field that says what to run",
        ),
        (
            r#"{"modules":"remove","module":"AGFzbQ=="}"#,
            "modules: expected `remove` with `digest` and no other field that says what to run",
        ),
        (r#"{"modules":"list","args":["x"]}"#, "args: expected only together with code to run"),
        (r#"{"modules":"list","env":{"A":""}}"#, "env: expected only together with code to run"),
        (r#"{"modules":"list","stdin":"AA=="}"#, "stdin: expected only together with code to run"),
        (r#"{"modules":"list","makefile":"x"}"#, "makefile: expected only together with source or files"),
    ] {
        let error = decode_text(RequestKind::InputCode, payload).unwrap_err().error;
        assert_eq!((error.kind, &*error.message), (ErrorKind::Malformed, problem), "{payload}");
    }
    let code = decode_text(RequestKind::LocalCode, r#"{"modules":"store","module":"AGFzbQ=="}"#).unwrap_err();
    assert_eq!(code.error, code_on_local_code("module"));
}

#[test]
fn a_cancel_names_another_request_on_either_topic() {
    for kind in [RequestKind::LocalCode, RequestKind::InputCode] {
        let request = decode_text(kind, r#"{"id":"b","cancel":"a"}"#).unwrap();
        assert_eq!(request.code, Code::Cancel("a".try_into().unwrap()));
        assert_eq!(request.id, Some("b".try_into().unwrap()));
    }
}

#[test]
fn a_stream_needs_an_id_that_can_be_a_level_of_a_topic() {
    let stream = |id: &str| {
        let text = format!(r#"{{{id}"program":"a","reply":"stream"}}"#);
        decode_text(RequestKind::LocalCode, &text)
    };
    let request = stream(r#""id":"A-9_z.","#).unwrap();
    assert_eq!((request.reply, request.answer_form()), (ReplyForm::Stream, AnswerForm::Json));
    for id in ["", r#""id":"a/b","#, r#""id":"a b","#, r#""id":"+","#, r#""id":"ä","#] {
        let Rejected { form, error, .. } = stream(id).unwrap_err();
        assert_eq!(form, AnswerForm::Json, "{id}");
        assert_eq!(error.message, "id: a stream needs one of letters, digits, `_`, `-` and `.`", "{id}");
    }
    let unnamed = Request { reply: ReplyForm::Stream, ..Request::new(Code::Program("a".into())) };
    assert_eq!(encode(&unnamed).unwrap_err().kind, ErrorKind::Malformed);
}

/// Every field of an envelope, each with what must not be in it, and the message that says so.
#[test]
fn a_wrong_field_of_a_json_envelope_is_refused_by_name() {
    let long_id = "x".repeat(MAX_ID + 1);
    for (fields, message) in [
        (r#""id":7"#, "id: expected text, got a number"),
        (r#""id":null"#, "id: expected text, got null"),
        (r#""id":"""#, "id: expected 1 to 64 bytes, got 0"),
        (&format!(r#""id":"{long_id}""#), "id: expected 1 to 64 bytes, got 65"),
        (r#""id":"a","id":"b""#, "id: given twice"),
        (
            r#""cancel":"x""#,
            "program, cancel: expected exactly one of module, digest, program, source, files, cancel",
        ),
        (
            r#""module":"""#,
            "program, module: expected exactly one of module, digest, program, source, files, cancel",
        ),
        (r#""program":"b""#, "program: given twice"),
        (r#""args":"5 7""#, "args: expected a list of text, got text"),
        (r#""args":["5","6",7]"#, "args[2]: expected text, got a number"),
        (r#""args":[["5"]]"#, "args[0]: expected text, got a list"),
        (r#""args":["a\u0000"]"#, "args[0]: expected text without NUL"),
        (r#""args":[],"args":[]"#, "args: given twice"),
        (r#""env":["A=1"]"#, "env: expected a map from text to text, got a list"),
        (r#""env":{"A":1}"#, "env.A: expected text, got a number"),
        (r#""env":{"A":"1","B":"2","A":"1"}"#, "env.A: given twice"),
        (r#""env":{"":"1"}"#, "env: expected names that are not empty"),
        (r#""env":{"A=B":"1"}"#, "env.A=B: expected a name without `=` and NUL"),
        (r#""env":{"A\u0000":"1"}"#, "env.A\0: expected a name without `=` and NUL"),
        (r#""env":{"A":"\u0000"}"#, "env.A: expected text without NUL"),
        (r#""env":{},"env":{}"#, "env: given twice"),
        (r#""stdin":[1,2]"#, "stdin: expected bytes as base64 text, got a list"),
        (r#""stdin":"AA""#, "stdin: expected padded base64: Invalid padding"),
        (r#""stdin":"","stdin":"""#, "stdin: given twice"),
        (r#""fuel":"7""#, "fuel: expected an unsigned 64-bit integer, got text"),
        (r#""fuel":7,"fuel":7"#, "fuel: given twice"),
        (r#""memory":true"#, "memory: expected an unsigned 64-bit integer, got a boolean"),
        (r#""memory":7,"memory":7"#, "memory: given twice"),
        (r#""timeout_ms":{}"#, "timeout_ms: expected an unsigned 64-bit integer, got a map"),
        (r#""timeout_ms":7,"timeout_ms":7"#, "timeout_ms: given twice"),
        (r#""reply":"json""#, "reply: expected `envelope`, `stdout` or `stream`, got another text"),
        (r#""reply":1"#, "reply: expected `envelope`, `stdout` or `stream`, got a number"),
        (r#""reply":"stdout","reply":"stdout""#, "reply: given twice"),
        (r#""stdout_offset":"7""#, "stdout_offset: expected an unsigned 64-bit integer, got text"),
        (r#""stdout_offset":7,"stdout_offset":7"#, "stdout_offset: given twice"),
        (
            r#""stdout_length":-1"#,
            "stdout_length: expected an unsigned 64-bit integer, got a number that is negative",
        ),
        (r#""stdout_length":7,"stdout_length":7"#, "stdout_length: given twice"),
        (r#""Args":[]"#, "Args: no such field"),
        (r#""timeout-ms":1"#, "timeout-ms: no such field"),
        (r#""makefile":"all:""#, "makefile: expected only together with source or files"),
        (r#""name":"x""#, "name: expected only together with source"),
        (r#""target":"x""#, "target: expected only together with files"),
    ] {
        let rejected =
            decode_text(RequestKind::LocalCode, &format!(r#"{{"program":"a",{fields}}}"#)).unwrap_err();
        assert_eq!(rejected.error, WireError::new(ErrorKind::Malformed, message), "{fields}");
        assert_eq!((rejected.form, rejected.id), (AnswerForm::Json, None), "{fields}");
    }
}

/// Every field in both encodings: a value of each type that it does not take, and itself twice.
#[test]
fn a_field_of_the_wrong_type_or_given_twice_is_refused_by_name() {
    let text = |text: &'static str| Value::Text(text.into());
    let bytes = || Value::Bytes(Bytes::from_static(b"\0asm"));
    let map = |value| Value::Map(vec![("a".into(), value)]);
    let digest = Value::Text(Digest([7; 32]).to_string().into());
    for (field, right, code) in [
        ("id", text("a"), "program"),
        ("module", bytes(), ""),
        ("digest", digest, ""),
        ("program", text("a"), ""),
        ("source", text("int main;"), "makefile"),
        ("files", map(bytes()), "makefile"),
        ("makefile", text("all:"), "source"),
        ("name", text("a"), "source"),
        ("target", text("a"), "files"),
        ("args", Value::List(vec![text("a")]), "program"),
        ("env", map(text("a")), "program"),
        ("stdin", bytes(), "program"),
        ("fuel", Value::Unsigned(1), "program"),
        ("memory", Value::Unsigned(1), "program"),
        ("timeout_ms", Value::Unsigned(1), "program"),
        ("reply", text("stdout"), "program"),
    ] {
        for encoding in [Encoding::Json, Encoding::Cbor] {
            let refused = |values: Vec<Value<'static>>| {
                let mut fields = Fields::new();
                match code {
                    "program" | "makefile" => fields.push((code.into(), text("a"))),
                    "source" => {
                        fields.push((code.into(), text("int main;")));
                        if field != "makefile" {
                            fields.push(("makefile".into(), text("all:")));
                        }
                    }
                    "files" => fields.push((code.into(), map(bytes()))),
                    _ => {}
                }
                fields.extend(values.into_iter().map(|value| (field.into(), value)));
                let rejected = decode(RequestKind::InputCode, encoding.write(fields), &[]).unwrap_err();
                assert_eq!(rejected.error.kind, ErrorKind::Malformed);
                rejected.error.message
            };
            assert_eq!(refused(vec![right.clone(), right.clone()]), format!("{field}: given twice"));
            let of_each_type = [
                Value::Null,
                Value::Unsigned(1),
                Value::Negative(-1),
                text("a"),
                bytes(),
                Value::List(vec![]),
                map(Value::Null),
            ];
            for wrong in of_each_type {
                let written_as = |value: &Value<'static>| match value {
                    Value::Bytes(_) if encoding == Encoding::Json => "text",
                    other => other.description(),
                };
                // A map from text to the wrong thing names its entry, a text that says something else is another test.
                if written_as(&wrong) == written_as(&right) && !matches!(wrong, Value::Map(_)) {
                    continue;
                }
                let message = refused(vec![wrong.clone()]);
                let named = [format!("{field}: expected "), format!("{field}.a: expected ")];
                assert!(named.iter().any(|start| message.starts_with(start)), "{field} {wrong:?}: {message}");
            }
        }
    }
}

#[test]
fn paths_lead_nowhere_else() {
    let request = |path: &str, target: Option<&str>| {
        let files = vec![(path.to_owned(), Bytes::new())];
        let target = target.map(str::to_owned);
        encode(&Request::new(Code::Files(Files { files, makefile: Some("all:".to_owned()), target })))
    };
    let longest = format!("{}/a", "x".repeat(MAX_PATH - 2));
    let deepest = vec!["a"; MAX_DEPTH].join("/");
    for path in ["a.c", "a b/ä.c", ".hidden", "a/..b/c..", longest.as_str(), deepest.as_str()] {
        assert!(request(path, Some(path)).is_ok(), "{path}");
    }
    for path in [
        "",
        "/etc/passwd",
        "..",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        "./a",
        "a\\b",
        "a\0",
        "a\n",
        &(longest + "x"),
        &(deepest + "/a"),
    ] {
        let (file, target) = (request(path, None).unwrap_err(), request("a", Some(path)).unwrap_err());
        assert!(file.message.starts_with("files: expected relative paths"), "{path}: {file}");
        assert!(target.message.starts_with("target: expected relative paths"), "{path}: {target}");
    }
}

#[test]
fn an_unreadable_cbor_envelope_is_answered_in_cbor() {
    for kind in [RequestKind::LocalCode, RequestKind::InputCode] {
        for payload in
            [&b"\xd9\xd9\xf7"[..], b"\xd9\xd9\xf7\xbf\xff", b"\xd9\xd9\xf7\xa0\xa0", b"\xd9\xd9\xf7\x80"]
        {
            let rejected = decode(kind, Bytes::copy_from_slice(payload), &[]).unwrap_err();
            assert!(rejected.error.message.starts_with("envelope: "), "{}", rejected.error);
            assert_eq!((rejected.form, rejected.id), (AnswerForm::Cbor, None));
        }
    }
}

#[test]
fn legacy_text_is_taken_apart_at_its_delimiters() {
    let source = |name: &str, text: &'static [u8], build| {
        Code::Source(Source { name: name.into(), text: Bytes::from_static(text), build })
    };
    let gcc = || Build::Command("gcc <name>.c -o <name>".into());
    for (payload, code, args) in [
        // As the deployed clients send it.
        (
            &b"prime----1 100----int main() {}\n----gcc <name>.c -o <name>"[..],
            source("prime", b"int main() {}\n", gcc()),
            &["1", "100"][..],
        ),
        (b"------------gcc <name>.c -o <name>", source("program", b"", gcc()), &[]),
        // With the zero that ends a string in C.
        (b"a----1----x----gcc <name>.c -o <name>\n\0", source("a", b"x", gcc()), &["1"]),
        (b"../a---- 1\n2 ----x----gcc <name>.c -o <name>\n", source("program", b"x", gcc()), &["1", "2"]),
        (b"\xff--------x----gcc <name>.c -o <name>", source("program", b"x", gcc()), &[]),
        // Source may hold the delimiter and what is not text; the name ends at the first one.
        (b"a--------// ---- \xe4\n----gcc <name>.c -o <name>", source("a", b"// ---- \xe4\n", gcc()), &[]),
        (b"a-b-----c----x-----all:", source("a-b", b"x-", Build::Makefile("all:".into())), &["-c"]),
        // A module, to its last byte.
        (b"a----5 7----\0asm--------", Code::Module(Bytes::from_static(b"\0asm--------")), &["5", "7"]),
    ] {
        let given = properties(&[("id", "a"), ("fuel", "7"), ("arg", "no")]);
        let request = decode(RequestKind::InputCode, Bytes::copy_from_slice(payload), &given).unwrap();
        assert_eq!((request.form, &request.code), (Form::LegacyText, &code), "{payload:?}");
        assert_eq!(request.args, args);
        assert_eq!((request.id, request.limits.fuel), (Some("a".try_into().unwrap()), Some(7)));
    }
}

#[test]
fn in_an_envelope_a_name_is_made_safe_and_may_be_absent() {
    for (fields, name) in [("", "program"), (r#","name":"../x""#, "program"), (r#","name":"sum-2""#, "sum-2")]
    {
        let envelope = format!(r#"{{"makefile":"g++ <name>.cpp","source":"int main;"{fields}}}"#);
        let request = decode_text(RequestKind::InputCode, &envelope).unwrap();
        let Code::Source(source) = request.code else { panic!("no source") };
        assert_eq!((source.name.as_str(), source.language()), (name, Language::Cpp));
        assert_eq!(
            (source.text, source.build),
            ("int main;".into(), Build::Command("g++ <name>.cpp".into()))
        );
    }
}

#[test]
fn only_integer_literals_are_integers() {
    for field in ["fuel", "memory", "timeout_ms"] {
        for number in ["1.0", "1e3", "-1", "-0", "18446744073709551616"] {
            let payload = format!(r#"{{"program":"a","{field}":{number}}}"#);
            let error = decode_text(RequestKind::LocalCode, &payload).unwrap_err().error;
            assert_eq!(error.kind, ErrorKind::Malformed);
            assert!(
                error
                    .message
                    .starts_with(&format!("{field}: expected an unsigned 64-bit integer, got a number")),
                "{number}: {error}"
            );
        }
    }
}

#[test]
fn an_envelope_says_what_to_run_exactly_once() {
    let none =
        "module, digest, program, source, files, cancel: expected exactly one of these fields, got none";
    for (payload, message) in [
        (r#"{}"#, none),
        (r#"{"args":[]}"#, none),
        (r#"{"digest":"sha256:00"}"#, "digest: expected `sha256:` and 64 hexadecimal digits"),
        (r#"{"source":"int main"}"#, "makefile: expected together with source, got none"),
        (
            r#"{"source":"","makefile":" "}"#,
            "makefile: expected a makefile or a compiler command, got nothing",
        ),
        (r#"{"source":"a\u0000","makefile":"all:"}"#, "source: expected text without NUL"),
        (r#"{"source":"","makefile":"all:","name":"a\u0000"}"#, "name: expected text without NUL"),
        (r#"{"files":{"a.c":""},"makefile":"a:\u0000\n b:"}"#, "makefile: expected text without NUL"),
        (r#"{"source":"","makefile":"all:","target":"a"}"#, "target: expected only together with files"),
        (r#"{"files":{},"makefile":"all:"}"#, "files: expected at least one file, got none"),
        (r#"{"files":{"a.c":""}}"#, "makefile: expected, here or as a file `Makefile`"),
        (r#"{"files":{"a.c":""},"makefile":"\n"}"#, "makefile: expected a makefile, got nothing"),
        (r#"{"files":{"a.c":"","a.c":""},"makefile":"all:"}"#, "files.a.c: given twice"),
        (
            r#"{"files":{"a/b":"","a":""},"makefile":"all:"}"#,
            "files.a: expected a file or a folder, got both",
        ),
        (r#"{"files":{"a.c":""},"makefile":"all:","name":"a"}"#, "name: expected only together with source"),
        (
            r#"{"files":{"a.c":7},"makefile":"all:"}"#,
            "files.a.c: expected bytes as base64 text, got a number",
        ),
        (r#"{"module":7}"#, "module: expected bytes as base64 text, got a number"),
        (r#"{"module":"AGFzbQ=","args":[]}"#, "module: expected padded base64: Invalid padding"),
        (r#"{"module":"-_8="}"#, "module: expected padded base64: Invalid symbol 45, offset 0."),
        (r#"{"program":["add"]}"#, "program: expected text, got a list"),
    ] {
        let error = decode_text(RequestKind::InputCode, payload).unwrap_err().error;
        assert_eq!(error, WireError::new(ErrorKind::Malformed, message), "{payload}");
    }
}

#[test]
fn code_on_local_code_is_refused() {
    let module = decode(RequestKind::LocalCode, Bytes::from_static(b"\0asm\x01\0\0\0"), &[]).unwrap_err();
    let envelope = decode_text(RequestKind::LocalCode, r#"{"id":"a","module":"AGFzbQ=="}"#).unwrap_err();
    assert!(module.error.message.starts_with("module: localCode runs programs"));
    assert_eq!(module.error, envelope.error);
    assert_eq!((module.form, envelope.form), (AnswerForm::Line, AnswerForm::Json));
    assert_eq!(envelope.id, Some("a".try_into().unwrap()));
}

#[test]
fn a_refused_envelope_is_answered_as_it_asked() {
    let wrong = decode_text(RequestKind::LocalCode, r#"{"fuel":-1,"reply":"stdout","id":"a","program":"b"}"#);
    let wrong = wrong.unwrap_err();
    assert_eq!((wrong.form, wrong.id), (AnswerForm::Line, Some("a".try_into().unwrap())));
    for unreadable in [r#"{"id":"a","#, r#"{"id":"a"} x"#, r#"{"id":"a","env":{"A":{"B":{"C":{}}}}}"#] {
        let rejected = decode_text(RequestKind::LocalCode, unreadable).unwrap_err();
        assert!(rejected.error.message.starts_with("envelope: "), "{}", rejected.error);
        assert_eq!((rejected.form, rejected.id), (AnswerForm::Json, None));
    }
    let many = format!(r#"{{"program":"a","args":[{}""]}}"#, r#""","#.repeat(MAX_VALUES));
    let rejected = decode_text(RequestKind::LocalCode, &many).unwrap_err();
    assert_eq!(rejected.error.to_string(), "too-large: envelope: more than 65536 values");
}

/// As a gateway with small limits has them.
const SMALL: Bounds =
    Bounds { module: 100, source: 100, files: 3, args: 4, args_bytes: 20, env: 2, env_bytes: 20, stdin: 10 };

/// What is over a bound is told with both figures, in every form.
#[test]
fn what_is_over_a_bound_is_too_large() {
    use RequestKind::{InputCode, LocalCode};
    let long = "x".repeat(101);
    let module = format!("\0asm{}", "x".repeat(97));
    let base64 = format!("AGFzbQ{}AA==", "A".repeat(130));
    for (kind, payload, message) in [
        (InputCode, module.as_str(), "module: 101 bytes, the limit is 100 bytes"),
        (InputCode, &format!("a----b----{module}"), "module: 101 bytes, the limit is 100 bytes"),
        (InputCode, &format!(r#"{{"module":"{base64}"}}"#), "module: 103 bytes, the limit is 100 bytes"),
        (
            InputCode,
            &format!("a----b----{}----cc x", &long[4..]),
            "source: 101 bytes, the limit is 100 bytes",
        ),
        (
            InputCode,
            &format!(r#"{{"makefile":"all:","source":"{}"}}"#, &long[4..]),
            "source: 101 bytes, the limit is 100 bytes",
        ),
        (
            InputCode,
            &format!(r#"{{"files":{{"a.c":"eHg=","b":"{}"}},"makefile":"all:"}}"#, "A".repeat(124)),
            "source: 103 bytes, the limit is 100 bytes",
        ),
        (InputCode, r#"{"files":{"a":"","b":"","c":"","d":""}}"#, "files: number 4, the limit is 3"),
        (LocalCode, "1 2 3 4 5", "args: number 5 or more, the limit is 4"),
        (LocalCode, "1 12345678901234567890", "args: 21 bytes or more, the limit is 20 bytes"),
        (InputCode, "a----1 2 3 4 5 6----int x;----all:", "args: number 5 or more, the limit is 4"),
        (LocalCode, r#"{"program":"a","args":["1","2","3","4","5","6"]}"#, "args: number 6, the limit is 4"),
        (
            LocalCode,
            r#"{"args":["12345678901234567890","1"],"program":"a"}"#,
            "args: 21 bytes, the limit is 20 bytes",
        ),
        (LocalCode, r#"{"program":"a","env":{"A":"","B":"","C":""}}"#, "env: number 3, the limit is 2"),
        (
            LocalCode,
            r#"{"program":"a","env":{"A":"12345678901234567890"}}"#,
            "env: 21 bytes, the limit is 20 bytes",
        ),
        (
            LocalCode,
            r#"{"program":"a","stdin":"AAAAAAAAAAAAAAA="}"#,
            "stdin: 11 bytes, the limit is 10 bytes",
        ),
    ] {
        let rejected =
            super::decode(kind, Bytes::copy_from_slice(payload.as_bytes()), &[], &SMALL).unwrap_err();
        assert_eq!(rejected.error, WireError::new(ErrorKind::TooLarge, message), "{payload}");
    }
    let given = |name: &str, value: &str, count| vec![(name.to_owned(), value.to_owned()); count];
    for (properties, message) in [
        (given("arg", "x", 5), "args: number 5, the limit is 4"),
        (given("arg", "1234567", 3), "args: 21 bytes, the limit is 20 bytes"),
        (given("env.A", "", 3), "env: number 3, the limit is 2"),
        (given("env.A", "1234567890", 2), "env: 22 bytes, the limit is 20 bytes"),
    ] {
        let rejected =
            super::decode(InputCode, Bytes::from_static(&WASM_MAGIC), &properties, &SMALL).unwrap_err();
        assert_eq!(rejected.error, WireError::new(ErrorKind::TooLarge, message));
    }
}

#[test]
fn what_is_within_all_bounds_is_taken() {
    let request = super::decode(
        RequestKind::LocalCode,
        r#"{"env":{"A":"1","B":"2"},"args":["1","2","3","4"],"stdin":"AAAAAAAAAAAAAA==","program":"a"}"#
            .into(),
        &[],
        &SMALL,
    );
    let request = request.unwrap();
    assert_eq!((request.args.len(), request.env.len(), request.stdin.len()), (4, 2, 10));
}

/// A list over its bound is counted to its end, where that is near, so that the answer has the request's id; of one
/// that is far longer no more is looked at than of any other envelope.
#[test]
fn no_more_of_an_envelope_is_looked_at_than_can_belong_there() {
    let cbor = |args: usize| {
        let mut encoder = minicbor::Encoder::new(CBOR_TAG.to_vec());
        encoder.map(3).unwrap().str("args").unwrap().array(args as u64).unwrap();
        (0..args).for_each(|_| {
            encoder.str("").unwrap();
        });
        encoder.str("program").unwrap().str("a").unwrap().str("id").unwrap().str("x").unwrap();
        Bytes::from(encoder.into_writer())
    };
    let json = |args: usize| {
        let args = vec![r#""""#; args].join(",");
        Bytes::from(format!(r#"{{"args":[{args}],"program":"a","id":"x"}}"#))
    };
    let most = SMALL.values();
    assert!(most < 2000 && Bounds::NONE.values() == MAX_VALUES);
    for form in [&cbor as &dyn Fn(usize) -> Bytes, &json] {
        let rejected = |args| super::decode(RequestKind::LocalCode, form(args), &[], &SMALL).unwrap_err();
        let near = rejected(most - 5);
        assert_eq!(near.error.message, format!("args: number {}, the limit is 4", most - 5));
        assert_eq!(near.id, Some("x".try_into().unwrap()));
        let far = rejected(most);
        assert_eq!(far.error.to_string(), format!("too-large: envelope: more than {most} values"));
    }
}

/// What does not fit a field is looked through and not kept, whatever is in it.
#[test]
fn what_fits_no_field_is_not_kept() {
    let nested = r#"{"a":["b"]}"#;
    for field in ["id", "module", "program", "stdin", "fuel", "unknown", "args", "env"] {
        let payload = format!(r#"{{"{field}":[{nested}]}}"#);
        let payload = Bytes::from(payload);
        let shape_of = |name: &str| if name == "args" { Shape::List(9) } else { Shape::Scalar };
        let fields = Encoding::Json.read(&payload, shape_of, 100);
        match &fields.unwrap()[..] {
            [(_, Value::Unfit("a list"))] if field != "args" => {}
            [(_, Value::List(items))] if field == "args" => assert_eq!(items, &[Value::Unfit("a map")]),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn wrong_user_properties_are_refused_by_name() {
    let long_id = "x".repeat(MAX_ID + 1);
    for (given, message) in [
        (&[("id", "a"), ("id", "a")][..], "id: given twice"),
        (&[("id", "")], "id: expected 1 to 64 bytes, got 0"),
        (&[("id", &long_id)], "id: expected 1 to 64 bytes, got 65"),
        (&[("fuel", "1"), ("fuel", "1")], "fuel: given twice"),
        (&[("fuel", "+1")], "fuel: expected an unsigned 64-bit integer in decimal digits"),
        (&[("fuel", "")], "fuel: expected an unsigned 64-bit integer in decimal digits"),
        (&[("memory", "1"), ("memory", "2")], "memory: given twice"),
        (&[("memory", "64MiB")], "memory: expected an unsigned 64-bit integer in decimal digits"),
        (&[("timeout-ms", "1"), ("timeout-ms", "2")], "timeout-ms: given twice"),
        (
            &[("timeout-ms", "18446744073709551616")],
            "timeout-ms: expected an unsigned 64-bit integer in decimal digits",
        ),
    ] {
        for (kind, payload) in
            [(RequestKind::InputCode, &b"\0asm\x01\0\0\0"[..]), (RequestKind::LocalCode, b"5 7")]
        {
            let rejected = decode(kind, Bytes::copy_from_slice(payload), &properties(given)).unwrap_err();
            assert_eq!(rejected.error, WireError::new(ErrorKind::Malformed, message));
            assert_eq!((rejected.form, rejected.id), (AnswerForm::Line, None));
        }
    }
    for (given, message) in [
        (&[("env.A", "1"), ("env.A", "2")][..], "env.A: given twice"),
        (&[("env.", "1")], "env: expected names that are not empty"),
        (&[("env.A=", "1")], "env.A=: expected a name without `=` and NUL"),
        (&[("env.A", "\0")], "env.A: expected text without NUL"),
        (&[("arg", "a"), ("arg", "\0")], "args[1]: expected text without NUL"),
    ] {
        let given = [properties(&[("id", "a")]), properties(given)].concat();
        let rejected = decode(RequestKind::InputCode, Bytes::from_static(&WASM_MAGIC), &given).unwrap_err();
        assert_eq!(rejected.error, WireError::new(ErrorKind::Malformed, message));
        assert_eq!(rejected.id, Some("a".try_into().unwrap()));
    }
}

#[test]
fn an_envelope_ignores_user_properties() {
    let given = properties(&[("id", "a"), ("id", "b"), ("fuel", "x"), ("arg", "1")]);
    let request = decode(RequestKind::LocalCode, r#"{"program":"add"}"#.into(), &given).unwrap();
    assert_eq!(request, Request::new(Code::Program("add".into())));
}

const NOTHING: &str =
    "payload: expected a wasm module, an envelope, or source in four parts with `----` between them";
const FOUR_PARTS_SOURCE: &str = "source: expected name, args, source and build with `----` between them";
const FOUR_PARTS_MAKEFILE: &str = "makefile: expected name, args, source and build with `----` between them";

#[test]
fn whatever_has_no_form_is_refused() {
    use RequestKind::{InputCode, LocalCode};
    for (kind, payload, message) in [
        (LocalCode, &b"\xff\xfe"[..], "payload: expected a form of request, got bytes that are not text"),
        (LocalCode, b"5 7\0", "args: expected text without control characters"),
        (LocalCode, b"5\x1b[31m", "args: expected text without control characters"),
        (InputCode, b"5 7", NOTHING),
        (InputCode, b"", NOTHING),
        (InputCode, b"\0as", NOTHING),
        (InputCode, b"a---b", NOTHING),
        (InputCode, b"a----5 7", FOUR_PARTS_SOURCE),
        (InputCode, b"a----5 7----int main;", FOUR_PARTS_MAKEFILE),
        (InputCode, b"a----5 7-----int main;", FOUR_PARTS_MAKEFILE),
        (InputCode, b"a----\xff--------gcc", "args: expected UTF-8"),
        (InputCode, b"a----a\0--------gcc", "args[0]: expected text without NUL"),
        (InputCode, b"a--------int----gcc \xff", "makefile: expected UTF-8"),
        (InputCode, b"a\0--------int----gcc a.c", "name: expected text without NUL"),
        (InputCode, b"a--------int\0----gcc a.c", "source: expected text without NUL"),
        (InputCode, b"a--------int----gcc\0 a.c\0", "makefile: expected text without NUL"),
        (
            InputCode,
            b"a--------int---- \n",
            "makefile: expected a makefile or a compiler command, got nothing",
        ),
    ] {
        let error = WireError::new(ErrorKind::Malformed, message);
        let rejected = decode(kind, Bytes::copy_from_slice(payload), &[]).unwrap_err();
        assert_eq!(rejected, Rejected { form: AnswerForm::Line, id: None, error });
    }
}

#[test]
fn a_form_refuses_what_it_cannot_carry() {
    let module = Request {
        form: Form::RawModule,
        reply: ReplyForm::Stdout,
        ..Request::new(Code::Module(Bytes::from_static(&WASM_MAGIC)))
    };
    let args = Request { form: Form::LegacyArgs, ..module.clone() };
    let args = Request { code: Code::DefaultProgram, ..args };
    let json = Request::new(Code::Program("add".into()));
    let text = |text: &str| vec![text.to_owned()];
    let source = |name: &str, text: &'static str, makefile: &str| {
        let build = Build::Makefile(makefile.into());
        Code::Source(Source { name: name.into(), text: text.into(), build })
    };
    let with = |code| Request { code, ..json.clone() };
    let legacy = |code| Request { form: Form::LegacyText, reply: ReplyForm::Stdout, ..with(code) };
    for (request, field) in [
        (Request { stdin: "x".into(), ..module.clone() }, "stdin"),
        (Request { stdout_range: Some(StdoutRange::default()), ..module.clone() }, "stdout_offset"),
        (Request { reply: ReplyForm::Envelope, ..module.clone() }, "reply"),
        (Request { code: Code::DefaultProgram, ..module.clone() }, "program"),
        (Request { code: Code::Module("x".into()), ..module.clone() }, "module"),
        (Request { args: text("\0"), ..module.clone() }, "args[0]"),
        (Request { env: properties(&[("", "1")]), ..module }, "env"),
        (Request { env: properties(&[("A", "1")]), ..args.clone() }, "env"),
        (Request { args: text("5 7"), ..args.clone() }, "args"),
        (Request { args: text(""), ..args.clone() }, "args"),
        (Request { args: text("{"), ..args.clone() }, "args"),
        (Request { code: json.code.clone(), ..args }, "program"),
        (Request { code: Code::DefaultProgram, ..json.clone() }, "program"),
        (with(source("a b", "x", "all:")), "name"),
        (with(source("a", "x", " ")), "makefile"),
        (with(source("a", "x", "gcc <name>.c")), "makefile"),
        (legacy(source("a", "x", "all: # ----")), "source"),
        (legacy(source("a-", "x", "all:")), "source"),
        (Request { args: text("5 7"), ..legacy(source("a", "x", "all:")) }, "source"),
        (Request { env: properties(&[("A", "1")]), ..legacy(source("a", "x", "all:")) }, "env"),
        (legacy(Code::Program("add".into())), "source"),
    ] {
        let error = encode(&request).unwrap_err();
        assert!(error.message.starts_with(&format!("{field}: ")), "{error}");
    }
}

fn id() -> impl Strategy<Value = Option<RequestId>> {
    option::of("\\PC{1,16}".prop_map(|id| RequestId::try_from(id.as_str()).unwrap()))
}

fn limits() -> impl Strategy<Value = RequestLimits> {
    let number = || option::of(any::<u64>());
    (number(), number(), number()).prop_map(|(fuel, memory, timeout)| RequestLimits {
        fuel,
        memory,
        timeout: timeout.map(Duration::from_millis),
    })
}

fn module() -> impl Strategy<Value = Code> {
    vec(any::<u8>(), 0..64).prop_map(|tail| Code::Module([&WASM_MAGIC[..], &tail].concat().into()))
}

fn env() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::btree_map("[^=\0]{1,8}", "[^\0]{0,8}", 0..4)
        .prop_map(|env| env.into_iter().collect())
}

fn source(name: &'static str, text: impl Strategy<Value = Bytes>) -> impl Strategy<Value = Code> {
    let build =
        prop_oneof!["(gcc|clang\\+\\+)( [a-z<>.]{1,8}){0,3}", "[a-z]{1,4}:\n(\t[$()A-Za-z +.]{0,16}\n){0,3}"];
    (name, text, build).prop_map(|(name, text, build)| {
        Code::Source(Source { name, text, build: Build::parse(&build).unwrap() })
    })
}

fn files() -> impl Strategy<Value = Code> {
    let contents = vec(any::<u8>(), 0..32).prop_map(Bytes::from);
    let files = proptest::collection::btree_map("[a-z]{1,4}/[a-zä]{1,4}\\.c", contents, 1..4);
    (files, "[a-z]{1,4}:\\PC{0,16}", option::of("[a-z]{1,8}(/[a-z]{1,8})?")).prop_map(
        |(files, makefile, target)| {
            Code::Files(Files { files: files.into_iter().collect(), makefile: Some(makefile), target })
        },
    )
}

/// Requests in every form, each with all that it can carry.
fn requests() -> impl Strategy<Value = Request> {
    let args = || vec("[^\0]{0,8}", 0..4);
    let words = vec("[a-zA-Z0-9ä.]{1,8}", 0..4);
    let stdin = vec(any::<u8>(), 0..32).prop_map(Bytes::from);
    let reply = prop_oneof![Just(ReplyForm::Envelope), Just(ReplyForm::Stdout)];
    let raw = (module(), args(), env()).prop_map(|(code, args, env)| Request {
        form: Form::RawModule,
        args,
        env,
        reply: ReplyForm::Stdout,
        ..Request::new(code)
    });
    let digest = any::<[u8; 32]>().prop_map(|digest| Code::Digest(Digest(digest)));
    let source_text = "[^\0]{0,32}".prop_map(Bytes::from);
    let program = any::<String>().prop_map(Code::Program);
    let code = prop_oneof![module(), digest, program, source("[a-zA-Z0-9_-]{1,16}", source_text), files()];
    let form = prop_oneof![Just(Form::Json), Just(Form::Cbor)];
    let range = (any::<u64>(), option::of(any::<u64>()));
    let range = option::of(range.prop_map(|(offset, length)| StdoutRange { offset, length }));
    let envelope = (form, code, args(), env(), stdin, reply, range).prop_map(
        |(form, code, args, env, stdin, reply, stdout_range)| Request {
            form,
            args,
            env,
            stdin,
            reply,
            stdout_range,
            ..Request::new(code)
        },
    );
    let modules = prop_oneof![
        Just(ModulesRequest::List),
        vec(any::<u8>(), 0..64).prop_map(|module| ModulesRequest::Store(module.into())),
        any::<[u8; 32]>().prop_map(|digest| ModulesRequest::Remove(Digest(digest))),
    ];
    let form = prop_oneof![Just(Form::Json), Just(Form::Cbor)];
    let reply = prop_oneof![Just(ReplyForm::Envelope), Just(ReplyForm::Stdout)];
    let about_modules = (form, modules, reply).prop_map(|(form, modules, reply)| Request {
        form,
        reply,
        ..Request::new(Code::Modules(modules))
    });
    let any_text = vec(1..=u8::MAX, 0..64).prop_map(Bytes::from);
    let code = prop_oneof![module(), source("[a-z]{1,16}", any_text)];
    let text = (code, words.clone()).prop_map(|(code, args)| Request {
        form: Form::LegacyText,
        args,
        reply: ReplyForm::Stdout,
        ..Request::new(code)
    });
    let legacy = words.prop_map(|args| Request {
        form: Form::LegacyArgs,
        args,
        reply: ReplyForm::Stdout,
        ..Request::new(Code::DefaultProgram)
    });
    (prop_oneof![raw, envelope, about_modules, text, legacy], id(), limits())
        .prop_map(|(request, id, limits)| Request { id, limits, ..request })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(request in requests()) {
        let (kind, payload, user_properties) = encode(&request).unwrap();
        prop_assert_eq!(decode(kind, payload, &user_properties), Ok(request));
    }

    #[test]
    fn any_bytes_are_a_request_or_refused(
        start in prop_oneof![
            Just(&b""[..]),
            Just(&b"\0asm"[..]),
            Just(&b"{"[..]),
            Just(&b"{\"program\":"[..]),
            Just(&b"\xd9\xd9\xf7"[..]),
            Just(&b"\xd9\xd9\xf7\xa2\x67program\x61a\x65stdin"[..]),
            Just(&b"a----5 7----"[..]),
            Just(&b"a----5 7----int main;----"[..]),
        ],
        tail in vec(any::<u8>(), 0..64),
        user_properties in
            vec((prop_oneof![Just("id".to_owned()), "env\\..*", any::<String>()], any::<String>()), 0..4),
    ) {
        let payload = Bytes::from([start, &tail].concat());
        for kind in [RequestKind::LocalCode, RequestKind::InputCode] {
            if let Ok(request) = decode(kind, payload.clone(), &user_properties) {
                let Ok((_, payload, user_properties)) = encode(&request) else {
                    // White space in them tells apart what single spaces do not: an envelope is for these.
                    prop_assert!(matches!(request.form, Form::LegacyText | Form::LegacyArgs));
                    continue;
                };
                prop_assert_eq!(decode(kind, payload, &user_properties), Ok(request));
            }
        }
    }
}
