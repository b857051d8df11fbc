//! Native programs that take the machine, or places on it.

use std::io;
use std::sync::Arc;

use offload_tests::source::{COMMAND, legacy};

use crate::arena::Arena;
use crate::packet::{Answer, Publish};
use crate::stage::ABUSERS;

/// Processes that compute so briefly, and sleep so briefly in between, that whoever gives cores by recent use takes
/// them for interactive ones.
const BURSTS: &str = "#include <time.h>
#include <unistd.h>
int main(void)
{
    for (int process = 1; process < 28 && fork() > 0; process++) {}
    for (;;) {
        struct timespec now, begin, pause = {0, 1000};
        clock_gettime(CLOCK_MONOTONIC, &begin);
        do {
            clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < 50000);
        nanosleep(&pause, 0);
    }
}
";

const SLEEP: &str = "#include <unistd.h>\nint main(void) { sleep(25); return 0; }\n";

/// Requests under way for each account.
const AT_ONCE: usize = 4;

pub async fn bursts(arena: Arc<Arena>) -> io::Result<()> {
    by_accounts(arena, BURSTS, 1).await
}

pub async fn bursts_of_two(arena: Arc<Arena>) -> io::Result<()> {
    by_accounts(arena, BURSTS, 2).await
}

pub async fn sleepers(arena: Arc<Arena>) -> io::Result<()> {
    by_accounts(arena, SLEEP, 2).await
}

async fn by_accounts(arena: Arc<Arena>, source: &'static str, accounts: usize) -> io::Result<()> {
    arena
        .restless(accounts * arena.many(AT_ONCE), move |arena, number| async move {
            let account = number % accounts;
            let (user, id) = (ABUSERS[account], format!("native-{number}"));
            let mut link = arena.enter(&arena.connect(&id, account)).await?;
            let result = format!("result/{user}/{id}");
            link.subscribe(&arena, std::slice::from_ref(&result), 1).await?;
            let request = Publish::new(&format!("inputCode/{user}"), legacy("program", "", source, COMMAND));
            let request = request.response_topic(&result).bytes();
            while !arena.is_over() {
                link.send(&request).await?;
                arena.struck();
                let (first, body) = link.packet().await?;
                if Answer::read(first, &body).is_some_and(|answer| answer.payload.starts_with(b"error: busy"))
                {
                    arena.refused();
                }
            }
            Ok(())
        })
        .await;
    Ok(())
}
