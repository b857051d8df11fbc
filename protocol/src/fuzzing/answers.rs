//! Bytes as a gateway, or whoever else publishes there, may send them on a result topic.

use bytes::Bytes;

use super::{take_properties, take_text};
use crate::answer::{self, AnswerForm};
use crate::request::StdoutRange;

/// Decodes an answer. Of the first byte the lowest two bits choose the form (0 a line, 1 CBOR, 2 and 3 JSON), the next
/// two the number of user properties. Then come a text whose length is the part of stdout and twice the room that is
/// asked for, the properties, and the payload.
///
/// # Panics
/// If decoding panics, an envelope that was read is not written the same twice, or what is said to fit does not.
pub fn answers(data: &[u8]) {
    let Some((&choice, mut input)) = data.split_first() else { return };
    let form =
        [AnswerForm::Line, AnswerForm::Cbor, AnswerForm::Json, AnswerForm::Json][usize::from(choice & 3)];
    let size = take_text(&mut input).len();
    let user_properties = take_properties(choice >> 2 & 3, &mut input);
    let Ok(read) = answer::decode(form, Bytes::copy_from_slice(input), &user_properties) else { return };
    let (written, user_properties) = answer::encode(&read, form);
    if form != AnswerForm::Line {
        // The first writing may clean a message of what no message may hold.
        let again =
            answer::decode(form, written.clone(), &user_properties).expect("what was written is read");
        assert_eq!(answer::encode(&again, form).0, written);
    }
    let part = read.with_range(StdoutRange { offset: size as u64, length: Some(size as u64) });
    assert!(part.stdout.len() <= size);
    if let Some((payload, user_properties)) = answer::encode_within(&part, form, 2 * size, true) {
        let properties: usize =
            user_properties.iter().map(|(name, value)| 5 + name.len() + value.len()).sum();
        assert!(payload.len() + properties <= 2 * size);
    }
}
