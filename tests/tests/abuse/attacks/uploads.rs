//! Packets that are begun and never end.

use std::io;
use std::sync::Arc;

use crate::arena::Arena;
use crate::packet::Publish;
use crate::stage::ABUSERS;

/// Half of the largest packet that the broker takes by default, and what is sent of it.
const PACKET: usize = 16 << 20;
const SENT: usize = 15_900 << 10;
/// Sent at once.
const PART: usize = 256 << 10;

/// All but the last of a large request, from many connections.
pub async fn unfinished(arena: Arc<Arena>) -> io::Result<()> {
    let topic = format!("inputCode/{}", ABUSERS[0]);
    let request = Arc::new(Publish::new(&topic, vec![b'x'; PACKET - 64]).bytes());
    arena
        .crowd(arena.many(300), move |arena, number| {
            let request = request.clone();
            async move {
                let mut link = arena.enter(&arena.connect(&format!("unfinished-{number}"), 0)).await?;
                for part in request[..SENT].chunks(PART) {
                    if arena.is_over() {
                        break;
                    }
                    link.send(part).await?;
                    arena.struck();
                }
                arena.hold().await;
                Ok(())
            }
        })
        .await;
    Ok(())
}
