//! Connections of those whom nobody knows.

use std::io;
use std::sync::Arc;

use crate::arena::Arena;
use crate::packet::Connect;
use crate::stage::ABUSERS;

/// Empty user properties of one will: 240 000 bytes, which fit into a CONNECT.
const WILL_PROPERTIES: usize = 48_000;

/// A wrong password and a will that is large when it is decoded, from many connections at once.
pub async fn large_wills(arena: Arc<Arena>) -> io::Result<()> {
    let connect = Connect::new("wills").login(ABUSERS[0], "wrong").will("own/mallory/will", WILL_PROPERTIES);
    let connect = Arc::new(connect.bytes());
    arena
        .restless(arena.many(1_000), move |arena, _| {
            let connect = connect.clone();
            async move {
                let mut link = arena.open().await?;
                link.send(&connect).await?;
                arena.struck();
                let _ = link.packet().await;
                link.reset();
                Ok(())
            }
        })
        .await;
    Ok(())
}

pub async fn guessing(arena: Arc<Arena>) -> io::Result<()> {
    guess(arena, 200).await
}

pub async fn guessing_by_many(arena: Arc<Arena>) -> io::Result<()> {
    guess(arena, 900).await
}

/// Wrong passwords, one after the other from each connection's place.
async fn guess(arena: Arc<Arena>, connections: usize) -> io::Result<()> {
    arena
        .restless(arena.many(connections), |arena, number| async move {
            let user = ABUSERS[number % ABUSERS.len()];
            let mut link = arena.open().await?;
            link.send(&Connect::new(&format!("guess-{number}")).login(user, "wrong").bytes()).await?;
            arena.struck();
            let _ = link.packet().await;
            link.reset();
            Ok(())
        })
        .await;
    Ok(())
}
