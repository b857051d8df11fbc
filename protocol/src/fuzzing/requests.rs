//! Bytes as a client may send them on a request topic: every form, envelopes in both encodings, user properties.

use bytes::Bytes;

use super::take_properties;
use crate::answer::{self, Answer, AnswerForm};
use crate::error::MAX_ERROR_LINE;
use crate::request::{self, Bounds, Code, Form, ModulesRequest, Rejected, Request, RequestKind};

/// So tight that short inputs are over them.
const TIGHT: Bounds =
    Bounds { module: 64, source: 64, files: 2, args: 2, args_bytes: 16, env: 2, env_bytes: 16, stdin: 16 };

/// Decodes a request. Of the first byte the lowest bit chooses the topic (1 is `inputCode`), the next one the bounds (1
/// is tight), the next two the number of user properties, which follow; the rest is the payload.
///
/// # Panics
/// If decoding panics, lets through what is over a bound, gives a request that is not the same when it is written and
/// read again, or a refusal that cannot be told in its form.
pub fn requests(data: &[u8]) {
    let Some((&choice, mut input)) = data.split_first() else { return };
    let kind = if choice & 1 == 0 { RequestKind::LocalCode } else { RequestKind::InputCode };
    let bounds = if choice & 2 == 0 { Bounds::NONE } else { TIGHT };
    let user_properties = take_properties(choice >> 2 & 3, &mut input);
    let payload = Bytes::copy_from_slice(input);
    match request::decode(kind, payload, &user_properties, &bounds) {
        Ok(request) => {
            assert_within(&request, &bounds);
            match request::encode(&request) {
                Ok((_, payload, user_properties)) => {
                    let again = request::decode(kind, payload, &user_properties, &Bounds::NONE);
                    assert_eq!(again, Ok(request));
                }
                // White space in them tells apart what single spaces do not: an envelope is for these.
                Err(_) => assert!(matches!(request.form, Form::LegacyText | Form::LegacyArgs)),
            }
        }
        Err(rejected) => assert_told(rejected),
    }
}

fn assert_within(request: &Request, bounds: &Bounds) {
    let (code, files) = match &request.code {
        Code::Module(module) | Code::Modules(ModulesRequest::Store(module)) => {
            assert!(module.len() <= bounds.module);
            (0, 0)
        }
        Code::Source(source) => (source.text.len(), 0),
        Code::Files(files) => {
            let bytes = files.files.iter().map(|(path, contents)| path.len() + contents.len()).sum();
            (bytes, files.files.len())
        }
        Code::Digest(_) | Code::Program(_) | Code::DefaultProgram => (0, 0),
        Code::Cancel(_) | Code::Modules(_) | Code::Sealed => (0, 0),
    };
    assert!(code <= bounds.source && files <= bounds.files);
    assert!(request.args.len() <= bounds.args);
    assert!(request.args.iter().map(String::len).sum::<usize>() <= bounds.args_bytes);
    assert!(request.env.len() <= bounds.env);
    assert!(
        request.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= bounds.env_bytes
    );
    assert!(request.stdin.len() <= bounds.stdin);
}

fn assert_told(rejected: Rejected) {
    let form = rejected.form;
    let (id, error) = (rejected.id.clone(), rejected.error.clone());
    let (payload, user_properties) = answer::encode(&Answer::from(rejected), form);
    if form == AnswerForm::Line {
        assert!(payload.len() <= MAX_ERROR_LINE && !payload.contains(&b'\n'));
    }
    let read = answer::decode(form, payload, &user_properties).expect("an answer");
    let answer::Outcome::Failed(told) = read.outcome else { panic!("not an error: {read:?}") };
    assert_eq!(told.kind, error.kind);
    // A line has no envelope for an `id` that user properties cannot carry.
    assert!(read.id == id || form == AnswerForm::Line && read.id.is_none());
}
