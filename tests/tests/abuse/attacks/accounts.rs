//! Accounts that come and go while someone takes advantage of it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::arena::{Arena, Link};
use crate::packet::{self, Connect, Publish};
use crate::stage::{ABUSERS, PASSWORD};

/// The account that goes.
const REMOVED: usize = 1;

/// Until the wrong passwords stand before whoever comes then.
const QUEUED: Duration = Duration::from_millis(500);

/// Far longer than the gateway takes to see that its password file is another one.
const RELOADED: Duration = Duration::from_secs(10);

/// Wrong passwords keep the gateway busy; log-ins of a user wait behind them while that user is removed. None may be
/// let in after that, and none that was may stay.
pub async fn removed(arena: Arc<Arena>) -> io::Result<()> {
    let guessing = tokio::spawn(guess(arena.clone()));
    sleep(QUEUED).await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..arena.many(40) {
        let arena = arena.clone();
        waiting.spawn(async move {
            let link = arena.enter(&arena.connect(&format!("removed-{number}"), REMOVED)).await;
            arena.struck();
            link.ok()
        });
        sleep(Duration::from_millis(5)).await;
    }
    let name = format!("{}:", ABUSERS[REMOVED]);
    replace(&arena.passwords, |lines| lines.retain(|line| !line.starts_with(&name)))?;
    let deadline = Instant::now() + RELOADED;
    let mut entered = Vec::new();
    while let Some(link) = waiting.join_next().await {
        entered.extend(link.ok().flatten());
    }
    while Instant::now() < deadline && !arena.is_over() {
        sleep(Duration::from_millis(50)).await;
    }
    if Instant::now() >= deadline {
        for mut link in entered {
            if answers(&mut link).await {
                arena.found("a removed user is still connected");
            }
        }
        if arena.enter(&arena.connect("removed-again", REMOVED)).await.is_ok() {
            arena.found("a removed user is let in");
        }
    }
    let _ = guessing.await;
    Ok(())
}

async fn guess(arena: Arc<Arena>) {
    arena
        .restless(arena.many(100), |arena, number| async move {
            let mut link = arena.open().await?;
            link.send(&Connect::new(&format!("busy-{number}")).login(ABUSERS[0], "wrong").bytes()).await?;
            let _ = link.packet().await;
            link.reset();
            Ok(())
        })
        .await;
}

/// An account takes the client id of a user who is to come, with a session that stays. When the user is there, its
/// topics are its own.
pub async fn foreseen(arena: Arc<Arena>) -> io::Result<()> {
    let (user, line) = &arena.latecomer;
    let mut squatter = arena.enter(&arena.connect(user, 0).kept()).await?;
    squatter.subscribe(&arena, &[format!("result/{user}/#")], 1).await?;
    replace(&arena.passwords, |lines| lines.push(line.trim_end().to_owned()))?;
    sleep(RELOADED).await;
    if arena.is_over() {
        return Ok(());
    }
    arena.struck();
    let mut link = arena.open().await?;
    link.send(&Connect::new(user).login(user, PASSWORD).bytes()).await?;
    let Ok(mut link) = arena.let_in(link).await else {
        arena.found("a new user is kept out by one who took its client id");
        return Ok(());
    };
    link.subscribe(&arena, &[format!("result/{user}")], 1).await?;
    link.send(&Publish::new(&format!("localCode/{user}"), "5 7").bytes()).await?;
    link.packet().await?;
    let heard = async {
        while let Ok((first, _)) = squatter.packet().await {
            if first & 0xF0 == 0x30 {
                arena.found("a new user's answers go to one who took its client id");
                return;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), heard).await;
    Ok(())
}

/// Whether a connection still stands.
async fn answers(link: &mut Link) -> bool {
    link.send(&packet::ping()).await.is_ok() && link.expect(packet::PINGRESP).await.is_ok()
}

/// Puts another password file in its place.
fn replace(file: &Path, change: impl FnOnce(&mut Vec<String>)) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    let new = file.with_extension("new");
    fs::write(&new, lines.join("\n") + "\n")?;
    fs::rename(new, file)
}
