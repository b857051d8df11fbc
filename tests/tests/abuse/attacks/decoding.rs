//! Requests that cost more to understand than to send.

use std::io;
use std::sync::Arc;

use crate::arena::{Arena, write};
use crate::packet::Publish;
use crate::stage::ABUSERS;

/// An envelope of CBOR with this many values in it: an array of empty texts.
pub async fn cbor_values(arena: Arc<Arena>) -> io::Result<()> {
    const VALUES: u16 = 65_280;
    // The self-described tag, a map of one field, its name, and the array.
    let mut envelope = vec![0xD9, 0xD9, 0xF7, 0xA1, 0x64];
    envelope.extend(b"args");
    envelope.push(0x99);
    envelope.extend(VALUES.to_be_bytes());
    envelope.extend([0x60].repeat(VALUES.into()));
    send_again_and_again(arena, 64, Publish::new(&local(), envelope)).await
}

/// Arguments in the legacy form, as many as fit into a packet.
pub async fn arguments(arena: Arc<Arena>) -> io::Result<()> {
    send_again_and_again(arena, 2, Publish::new(&local(), "1 ".repeat(7 << 20))).await
}

/// User properties, as many as the broker takes in one packet.
pub async fn user_properties(arena: Arc<Arena>) -> io::Result<()> {
    const COUNT: usize = 48_000;
    send_again_and_again(arena, 16, Publish::new(&local(), "5 7").empty_user_properties(COUNT)).await
}

fn local() -> String {
    format!("localCode/{}", ABUSERS[0])
}

async fn send_again_and_again(arena: Arc<Arena>, connections: usize, request: Publish) -> io::Result<()> {
    let request = Arc::new(request.bytes());
    arena
        .restless(connections, move |arena, number| {
            let request = request.clone();
            async move {
                let mut link = arena.enter(&arena.connect(&format!("decoding-{number}"), 0)).await?;
                link.subscribe(&arena, &[format!("result/{}", ABUSERS[0])], 1).await?;
                let mut writer = link.reading();
                while !arena.is_over() {
                    write(&mut writer, &request).await?;
                    arena.struck();
                }
                Ok(())
            }
        })
        .await;
    Ok(())
}
