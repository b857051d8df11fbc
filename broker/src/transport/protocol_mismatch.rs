//! Protocols on the wrong port: recognized by their first bytes, so that the log can say what to change.

/// How requests of HTTP begin, that of HTTP/2 (PRI) among them.
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"CONNECT ",
    b"OPTIONS ",
    b"TRACE ",
    b"PATCH ",
    b"PRI ",
];

/// What the first bytes of a connection are, if they are neither MQTT nor, where that is spoken, WebSocket.
pub(crate) fn on_mqtt(first: &[u8]) -> &'static str {
    match first {
        [0x16, 0x03, ..] | [0x16] => {
            "TLS came to a port without it: use the port for TLS, or mqtt:// instead of mqtts://"
        }
        [_, ..] if METHODS.iter().any(|method| method.starts_with(first) || first.starts_with(method)) => {
            "HTTP came to a port for MQTT: browsers need the port for WebSocket"
        }
        _ => "the first packet is no CONNECT",
    }
}

/// The same for a port of WebSocket; `None` if it may be HTTP.
pub(crate) fn on_websocket(first: &[u8]) -> Option<&'static str> {
    match first {
        [] | [b'A'..=b'Z', ..] => None,
        [0x10, ..] => {
            Some("MQTT came to a port for WebSocket: use the port for MQTT, or ws:// instead of mqtt://")
        }
        [0x16, ..] => Some("TLS came to a port without it: use ws:// instead of wss://"),
        _ => Some("what came to a port for WebSocket is no HTTP"),
    }
}

/// Said when a port for TLS is sent something else.
pub(crate) const ON_TLS: &str = "no TLS came to a port for it: use the port without TLS, or mqtts:// instead of \
                                 mqtt://, wss:// instead of ws://";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_are_known_by_their_first_bytes() {
        for (first, said) in [
            (&[0x16, 3, 1, 2, 0][..], "TLS came"),
            (&[0x16], "TLS came"),
            (b"GET / HTTP/1.1", "HTTP came"),
            (b"P", "HTTP came"),
            (b"OPTIONS * HTTP/1.1", "HTTP came"),
            (b"PRI * HTTP/2.0", "HTTP came"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "no CONNECT"),
            (b"HELO mail", "no CONNECT"),
            (b"", "no CONNECT"),
            (&[0x50, 2, 0, 1], "no CONNECT"), // PUBREC, which begins as POST does
            (&[0xC0, 0], "no CONNECT"),
        ] {
            assert!(on_mqtt(first).contains(said), "{first:?}");
        }
        assert!(on_websocket(&[0x10, 12]).is_some_and(|said| said.contains("MQTT came")));
        assert!(on_websocket(&[0x16, 3]).is_some_and(|said| said.contains("TLS came")));
        assert!(on_websocket(b"\0").is_some());
        assert_eq!(on_websocket(b"GET"), None);
    }
}
