//! What stays of connections when they are gone.

use std::io;
use std::sync::Arc;

use crate::arena::Arena;
use crate::packet::{self, Publish};
use crate::stage::ABUSERS;

/// As many sessions as the broker has by default, but two.
const SESSIONS: usize = 32_766;
/// Connections at a time.
const AT_ONCE: usize = 64;

/// Sessions of one account, each of which is left at once and stays for as long as it may.
pub async fn hoard(arena: Arc<Arena>) -> io::Result<()> {
    let each = arena.many(SESSIONS).div_ceil(AT_ONCE);
    arena
        .crowd(AT_ONCE, move |arena, number| async move {
            for session in 0..each {
                if arena.is_over() {
                    break;
                }
                // One that is refused is one of many.
                let connect = arena.connect(&format!("hoard-{number}-{session}"), 0).kept();
                if let Ok(link) = arena.enter(&connect).await {
                    link.reset();
                }
            }
            Ok(())
        })
        .await;
    Ok(())
}

/// Messages at QoS 2 that are received and never released: each connection adds as many as it may have under way.
pub async fn unreleased(arena: Arc<Arena>) -> io::Result<()> {
    const IDENTIFIERS: usize = u16::MAX as usize;
    const UNDER_WAY: usize = 1_023;
    arena
        .crowd(arena.many(100), |arena, session| async move {
            let connect = arena.connect(&format!("unreleased-{session}"), 0).kept();
            let topic = format!("own/{}/unreleased", ABUSERS[0]);
            let identifiers: Vec<usize> = (1..=arena.many(IDENTIFIERS)).collect();
            for identifiers in identifiers.chunks(UNDER_WAY) {
                if arena.is_over() {
                    break;
                }
                let mut link = arena.enter(&connect).await?;
                let publish = |id: &usize| Publish::new(&topic, "").qos(2, *id as u16).bytes();
                link.send(&identifiers.iter().flat_map(publish).collect::<Vec<u8>>()).await?;
                for _ in identifiers {
                    let body = link.expect(packet::PUBREC).await?;
                    if body.get(2).is_some_and(|reason| *reason >= packet::REFUSED) {
                        arena.refused();
                    } else {
                        arena.struck();
                    }
                }
                link.reset();
            }
            Ok(())
        })
        .await;
    Ok(())
}
