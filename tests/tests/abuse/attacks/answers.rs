//! Answers: to whom they go, and to how many.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::arena::{Arena, Link, write};
use crate::packet::{self, Connect, Publish};
use crate::stage::{ABUSERS, PASSWORD, WATCHER};

/// A connection that asks until it has this many answers to come.
const REQUESTS_AT_ONCE: usize = 64;

/// Answers to an empty reply id that its asker cannot take. Another user, who rightly listens on `result/`, must hear
/// none.
pub async fn stray(arena: Arc<Arena>) -> io::Result<()> {
    let mut watcher = arena.open().await?;
    watcher.send(&Connect::new(WATCHER).login(WATCHER, PASSWORD).bytes()).await?;
    let mut watcher = arena.let_in(watcher).await?;
    watcher.subscribe(&arena, &["result/".to_owned()], 1).await?;
    let asking = tokio::spawn(ask_in_vain(arena.clone()));
    while !arena.is_over() {
        if let Ok(heard) = timeout(Duration::from_millis(50), watcher.packet()).await {
            let (first, _) = heard?;
            if first & 0xF0 == 0x30 {
                arena.found("another user heard the answer to an empty reply id");
            }
        }
    }
    let _ = asking.await;
    Ok(())
}

async fn ask_in_vain(arena: Arc<Arena>) {
    let request = Publish::new("localCode/", "5 7").bytes();
    arena
        .restless(4, move |arena, number| {
            let request = request.clone();
            async move {
                match number {
                    // Without a subscription.
                    0 => {
                        let mut link = arena.enter(&arena.connect("without", 0)).await?;
                        link.send(&request).await?;
                        sleep(Duration::from_millis(20)).await;
                    }
                    // Gone before the answer comes.
                    1 => {
                        let mut link = unnamed(&arena).await?;
                        link.send(&packet::publish_v311("localCode/", b"5 7")).await?;
                        link.reset();
                    }
                    // With a packet size that a CONNACK fits into, and no answer.
                    2 => {
                        let connect = arena.connect("small", 0).max_packet_size(64);
                        let mut link = arena.enter(&connect).await?;
                        link.subscribe(&arena, &["result/".to_owned()], 1).await?;
                        link.send(&request).await?;
                        sleep(Duration::from_millis(20)).await;
                    }
                    // Reading nothing, until its queue is full.
                    _ => {
                        let mut link = unnamed(&arena).await?;
                        let many = packet::publish_v311("localCode/", b"5 7").repeat(100);
                        for _ in 0..arena.many(1_000) {
                            if arena.is_over() {
                                break;
                            }
                            link.send(&many).await?;
                        }
                    }
                }
                arena.struck();
                Ok(())
            }
        })
        .await;
}

/// A client of MQTT 3.1.1 that the broker names, subscribed to `result/`.
async fn unnamed(arena: &Arena) -> io::Result<Link> {
    let mut link = arena.open().await?;
    link.send(&packet::connect_unnamed_v311(ABUSERS[0], PASSWORD)).await?;
    let mut link = arena.let_in(link).await?;
    link.send(&packet::subscribe_v311(1, "result/")).await?;
    link.expect(packet::SUBACK).await?;
    Ok(link)
}

/// Many connections of one account, each of which asks and hears what all of them are answered.
pub async fn shared(arena: Arc<Arena>) -> io::Result<()> {
    let user = ABUSERS[0];
    let request = Publish::new(&format!("localCode/{user}"), "5 7").bytes();
    let requests = Arc::new(request.repeat(REQUESTS_AT_ONCE));
    let connections = arena.many(500);
    arena
        .restless(connections, move |arena, number| {
            let requests = requests.clone();
            async move {
                let mut link = arena.enter(&arena.connect(&format!("shared-{number}"), 0)).await?;
                link.subscribe(&arena, &[format!("result/{user}")], 1).await?;
                let mut writer = link.reading();
                while !arena.is_over() {
                    write(&mut writer, &requests).await?;
                    arena.struck();
                    sleep(Duration::from_millis(100)).await;
                }
                Ok(())
            }
        })
        .await;
    Ok(())
}
