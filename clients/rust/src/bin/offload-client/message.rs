//! A message that arrived, as one line of text.

use std::fmt::Write;

use offload_mqtt::Message;

/// Bytes of a topic, a payload or a property that are shown.
const MAX_SHOWN_TEXT: usize = 1024;

/// Bytes of a payload that is no text that are shown.
const MAX_SHOWN_BINARY: usize = 64;

/// Properties that are shown.
const MAX_SHOWN_PROPERTIES: usize = 16;

/// The line: bounded, without anything that a terminal would act on.
pub fn line(message: &Message) -> String {
    let Message { topic, qos, properties, .. } = message;
    let mut line = format!("MESSAGE {} (QoS {}", text(topic), *qos as u8);
    if message.retain {
        line.push_str(", retained");
    }
    let own = [("response topic", &properties.response_topic), ("content type", &properties.content_type)];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let users = properties.user_properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut properties = own.chain(users);
    for (name, value) in properties.by_ref().take(MAX_SHOWN_PROPERTIES) {
        let _ = write!(line, ", {}={}", text(name), text(value));
    }
    match properties.count() {
        0 => {}
        more => _ = write!(line, ", {more} more properties"),
    }
    line.push_str("): ");
    line.push_str(&payload(&message.payload));
    line
}

fn payload(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(payload) => text(payload),
        Err(_) => {
            let mut hex = "0x".to_owned();
            for byte in bytes.iter().take(MAX_SHOWN_BINARY) {
                let _ = write!(hex, "{byte:02x}");
            }
            cut(hex, bytes.len(), MAX_SHOWN_BINARY)
        }
    }
}

/// Text from the network or from an error, bounded, with what a terminal would act on escaped.
pub fn text(text: &str) -> String {
    let mut shown = String::new();
    for c in text[..text.floor_char_boundary(MAX_SHOWN_TEXT)].chars() {
        if acts_on_a_terminal(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    cut(shown, text.len(), MAX_SHOWN_TEXT)
}

fn cut(mut shown: String, length: usize, most: usize) -> String {
    if length > most {
        let _ = write!(shown, "… ({length} bytes in all)");
    }
    shown
}

/// Control characters, and Unicode's marks that reorder or break the line around them.
pub fn acts_on_a_terminal(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use offload_mqtt::Properties;

    use super::*;

    fn message(payload: &[u8]) -> Message {
        Message::new("a/b", payload.to_vec())
    }

    #[test]
    fn text_is_shown_as_text_and_the_rest_as_hex() {
        for (payload, expected) in [
            (&b"12"[..], "MESSAGE a/b (QoS 1): 12"),
            (b"", "MESSAGE a/b (QoS 1): "),
            ("grün \"x\" \\".as_bytes(), "MESSAGE a/b (QoS 1): grün \"x\" \\"),
            (b"\xff\0a", "MESSAGE a/b (QoS 1): 0xff0061"),
            (b"two\nlines\x1b[2J\0", "MESSAGE a/b (QoS 1): two\\nlines\\u{1b}[2J\\u{0}"),
            ("\u{202e}x".as_bytes(), "MESSAGE a/b (QoS 1): \\u{202e}x"),
        ] {
            assert_eq!(line(&message(payload)), expected);
        }
    }

    #[test]
    fn what_else_it_carries_is_shown() {
        let properties = Properties {
            content_type: Some("text".to_owned()),
            user_properties: vec![("status".into(), "ok".into()), ("exit-code".into(), "0".into())],
            ..Properties::default()
        };
        let message = Message { retain: true, properties, ..message(b"12") };
        let expected = "MESSAGE a/b (QoS 1, retained, content type=text, status=ok, exit-code=0): 12";
        assert_eq!(line(&message), expected);
    }

    #[test]
    fn a_line_is_bounded() {
        assert!(line(&message(&[b'x'; 1 << 20])).ends_with("x… (1048576 bytes in all)"));
        assert!(line(&message("é".repeat(1 << 20).as_bytes())).len() < 2 * MAX_SHOWN_TEXT);
        let binary = line(&message(&[0xff; 1000]));
        assert!(binary.ends_with("ff… (1000 bytes in all)") && binary.len() < 200, "{binary}");
        let user_properties = vec![("k".repeat(5000), "v".repeat(5000)); 1000];
        let properties = Properties { user_properties, ..Properties::default() };
        let line = line(&Message { properties, ..message(b"") });
        assert!(line.contains(", 984 more properties)"), "{line}");
        assert!(line.len() < 3 * MAX_SHOWN_TEXT * MAX_SHOWN_PROPERTIES);
    }
}
