//! Modules: what they do when they run, and what they cost before and after.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::arena::{Arena, Link};
use crate::module;
use crate::packet::{Answer, Publish};
use crate::stage::ABUSERS;

/// Depths at which the component asks, from far above the end of its stack to beyond it, whatever a call takes.
pub async fn reentry(arena: Arc<Arena>) -> io::Result<()> {
    const DEPTHS: std::ops::Range<u32> = 2_000..20_000;
    const STEP: u32 = 100;
    let mut asker = asking(&arena, "reentry", 0).await?;
    // Those that are most likely to hurt come first.
    let depths = (10_000..12_000).chain(DEPTHS).step_by(STEP as usize);
    for depth in depths {
        if arena.is_over() {
            break;
        }
        asker.run(&arena, &module::reentry(depth).map_err(io::Error::other)?).await?;
    }
    Ok(())
}

/// Modules whose data is nearly all of what a module may have, each of them new.
pub async fn large(arena: Arc<Arena>) -> io::Result<()> {
    const DATA: usize = 7_000_000;
    const CONNECTIONS: usize = 4;
    let module = Arc::new(module::with_data(DATA).map_err(io::Error::other)?);
    let each = arena.many(120).div_ceil(CONNECTIONS);
    arena
        .crowd(CONNECTIONS, move |arena, number| {
            let module = module.clone();
            async move {
                let mut asker = asking(&arena, &format!("large-{number}"), 0).await?;
                for at in 0..each {
                    if arena.is_over() {
                        break;
                    }
                    let module = module::numbered(&module, (number * each + at) as u64);
                    asker.run(&arena, &module).await?;
                }
                Ok(())
            }
        })
        .await;
    Ok(())
}

/// Modules that take a compiler about a second, from four accounts with some under way each.
pub async fn compiles(arena: Arc<Arena>) -> io::Result<()> {
    const EACH: usize = 4;
    let connections = ABUSERS.len() * arena.many(EACH);
    always_new(arena, 400, connections, ABUSERS.len()).await
}

/// Modules that one account has compiled quickly, and that are compiled again behind the answer.
pub async fn background_compiles(arena: Arc<Arena>) -> io::Result<()> {
    let connections = arena.many(16);
    always_new(arena, 300, connections, 1).await
}

/// Modules of this many functions, none of which was there before, from some connections of some accounts.
async fn always_new(
    arena: Arc<Arena>,
    functions: usize,
    connections: usize,
    accounts: usize,
) -> io::Result<()> {
    let module = Arc::new(module::functions(functions).map_err(io::Error::other)?);
    let next = Arc::new(AtomicU64::new(0));
    arena
        .restless(connections, move |arena, number| {
            let (module, next) = (module.clone(), next.clone());
            async move {
                let account = number % accounts;
                let mut asker = asking(&arena, &format!("compiles-{number}"), account).await?;
                while !arena.is_over() {
                    let module = module::numbered(&module, next.fetch_add(1, Relaxed));
                    asker.run(&arena, &module).await?;
                }
                Ok(())
            }
        })
        .await;
    Ok(())
}

/// Guests that sleep as long as they may, one for each of many clients who have no name.
pub async fn sleepers(arena: Arc<Arena>) -> io::Result<()> {
    const SECONDS: u64 = 25;
    let module = Arc::new(module::sleeper(SECONDS).map_err(io::Error::other)?);
    arena
        .crowd(arena.many(1_000), move |arena, number| {
            let module = module.clone();
            async move {
                let id = format!("sleeper-{number}");
                let mut link = arena.enter(&arena.connect(&id, 0)).await?;
                let request = Publish::new(&format!("inputCode/{id}"), module.as_slice());
                // Two, so that one waits where the other ends.
                link.send(&request.bytes().repeat(2)).await?;
                arena.struck();
                arena.hold().await;
                Ok(())
            }
        })
        .await;
    Ok(())
}

/// Guests that do in their first slice what takes far longer than a slice.
pub async fn first_slices(arena: Arc<Arena>) -> io::Result<()> {
    let module = module::grow_and_fill().map_err(io::Error::other)?;
    again_and_again(arena, module, 8).await
}

/// Guests that do nothing but what a careless gateway logs.
pub async fn log_flood(arena: Arc<Arena>) -> io::Result<()> {
    let module = module::socket_calls().map_err(io::Error::other)?;
    again_and_again(arena, module, 4).await
}

/// The same module from some connections of one account.
async fn again_and_again(arena: Arc<Arena>, module: Vec<u8>, connections: usize) -> io::Result<()> {
    let module = Arc::new(module);
    arena
        .restless(connections, move |arena, number| {
            let module = module.clone();
            async move {
                let mut asker = asking(&arena, &format!("again-{number}"), 0).await?;
                while !arena.is_over() {
                    asker.run(&arena, &module).await?;
                }
                Ok(())
            }
        })
        .await;
    Ok(())
}

/// A connection, and the topic on which it alone is answered.
struct Asker {
    link: Link,
    input: String,
    result: String,
}

async fn asking(arena: &Arena, id: &str, account: usize) -> io::Result<Asker> {
    let user = ABUSERS[account];
    let mut link = arena.enter(&arena.connect(id, account)).await?;
    let result = format!("result/{user}/{id}");
    link.subscribe(arena, std::slice::from_ref(&result), 1).await?;
    Ok(Asker { link, input: format!("inputCode/{user}"), result })
}

impl Asker {
    /// Sends a module, and waits for its answer, whatever it is.
    async fn run(&mut self, arena: &Arena, module: &[u8]) -> io::Result<()> {
        let request = Publish::new(&self.input, module).response_topic(&self.result);
        self.link.send(&request.bytes()).await?;
        let (first, body) = self.link.packet().await?;
        let answer = Answer::read(first, &body).ok_or(io::ErrorKind::InvalidData)?;
        if answer.status == Some(b"error") {
            arena.refused()
        } else {
            arena.struck()
        }
        Ok(())
    }
}
