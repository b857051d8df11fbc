//! Filters: many, deep, overlapping, refused, or over much that is retained.

use std::io;
use std::sync::Arc;

use crate::arena::{Arena, write};
use crate::packet::{self, Publish};
use crate::stage::ABUSERS;

/// Filters in one SUBSCRIBE, and subscriptions of one session.
const FILTERS: usize = 256;
const SUBSCRIPTIONS: usize = 1_024;

/// Retained messages of one account, a few less than one may have alone.
const RETAINED: usize = 9_990;
/// How many PUBLISHes are sent before their acknowledgements are awaited.
const BATCH: usize = 500;

/// Messages are retained in an own tree of topics; then three connections subscribe to all of them, 128 times 256
/// filters each: by turns filters that are all the same, and filters that all differ and match everything.
pub async fn retained(arena: Arc<Arena>) -> io::Result<()> {
    const LEVELS: u32 = FILTERS.ilog2();
    let root = format!("own/{}", ABUSERS[0]);
    let names = ["a"; LEVELS as usize].join("/");
    let mut publisher = arena.enter(&arena.connect("retained", 0)).await?;
    let numbers: Vec<usize> = (0..arena.many(RETAINED)).collect();
    for batch in numbers.chunks(BATCH) {
        let publish = |(at, number): (usize, &usize)| {
            Publish::new(&format!("{root}/{names}/{number}"), "x").qos(1, at as u16 + 1).retain().bytes()
        };
        publisher.send(&batch.iter().enumerate().flat_map(publish).collect::<Vec<u8>>()).await?;
        for _ in batch {
            publisher.expect(packet::PUBACK).await?;
        }
    }
    let same = vec![format!("{root}/#"); FILTERS];
    // Each level is named or left open.
    let different: Vec<String> = (0..FILTERS)
        .map(|bits| {
            let level = |at| if bits >> at & 1 == 1 { "+/" } else { "a/" };
            format!("{root}/{}#", (0..LEVELS).map(level).collect::<String>())
        })
        .collect();
    let filters = Arc::new([same, different]);
    arena
        .restless(3, move |arena, number| {
            let filters = filters.clone();
            async move {
                let id = format!("subscriber-{number}");
                let mut writer = arena.enter(&arena.connect(&id, 0)).await?.reading();
                for round in 0..arena.many(128) {
                    if arena.is_over() {
                        break;
                    }
                    let subscribe = packet::subscribe(round as u16 + 1, 0, &filters[round % 2]);
                    write(&mut writer, &subscribe).await?;
                    arena.struck();
                }
                arena.hold().await;
                Ok(())
            }
        })
        .await;
    Ok(())
}

/// Sessions with many filters, each of as many levels as it may have, which stay when their
/// connections go.
pub async fn deep(arena: Arc<Arena>) -> io::Result<()> {
    const LEVELS: usize = 62;
    arena
        .crowd(arena.many(60), |arena, session| async move {
            let mut link = arena.enter(&arena.connect(&format!("deep-{session}"), 0).kept()).await?;
            let filter = |number| {
                let head = format!("result/{}/{session}-{number}", ABUSERS[0]);
                head + &"/a".repeat(LEVELS - 3)
            };
            let filters: Vec<String> = (0..SUBSCRIPTIONS).map(filter).collect();
            for filters in filters.chunks(FILTERS) {
                if arena.is_over() {
                    break;
                }
                link.subscribe(&arena, filters, FILTERS).await?;
            }
            Ok(())
        })
        .await;
    Ok(())
}

/// Sessions whose filters all match one topic, and requests that are answered there.
pub async fn overlapping(arena: Arc<Arena>) -> io::Result<()> {
    const LEVELS: u32 = SUBSCRIPTIONS.ilog2();
    let user = ABUSERS[0];
    let filter = |bits: usize| {
        let level = |at| if bits >> at & 1 == 1 { "/+" } else { "/a" };
        format!("result/{user}{}", (0..LEVELS).map(level).collect::<String>())
    };
    let filters: Arc<Vec<String>> = Arc::new((0..SUBSCRIPTIONS).map(filter).collect());
    let asking = {
        let arena = arena.clone();
        async move {
            let mut asker = arena.enter(&arena.connect("asker", 0)).await?.reading();
            let topic = format!("result/{user}{}", "/a".repeat(LEVELS as usize));
            let request = Publish::new(&format!("localCode/{user}"), "5 7").response_topic(&topic).bytes();
            while !arena.is_over() {
                write(&mut asker, &request).await?;
                arena.struck();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            io::Result::Ok(())
        }
    };
    let asking = tokio::spawn(asking);
    arena
        .crowd(arena.many(1_000), move |arena, session| {
            let filters = filters.clone();
            async move {
                let mut link = arena.enter(&arena.connect(&format!("overlapping-{session}"), 0)).await?;
                link.subscribe(&arena, &filters, FILTERS).await?;
                let _writer = link.reading();
                arena.hold().await;
                Ok(())
            }
        })
        .await;
    let _ = asking.await;
    Ok(())
}

/// Filters that nobody grants.
pub async fn refused(arena: Arc<Arena>) -> io::Result<()> {
    let filters: Vec<String> = (0..FILTERS).map(|number| format!("others/{number}/#")).collect();
    let packet = Arc::new(packet::subscribe(1, 0, &filters));
    arena
        .restless(16, move |arena, number| {
            let packet = packet.clone();
            async move {
                let mut writer =
                    arena.enter(&arena.connect(&format!("refused-{number}"), 0)).await?.reading();
                while !arena.is_over() {
                    write(&mut writer, &packet).await?;
                    arena.struck();
                }
                Ok(())
            }
        })
        .await;
    Ok(())
}
