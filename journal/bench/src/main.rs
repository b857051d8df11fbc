//! Durable appends: the bare disk, the journal, fjall and SQLite, one after the other in each round.
//!
//! Each contender keeps so many batches in flight for a while; each batch is durable before it counts. Where a store
//! has no completions, as many threads as there are batches in flight wait for theirs, and share commits as well as
//! the store allows.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use offload_journal::{Config, Journal};
use rusqlite::Connection;

/// Rounds, of which the medians count.
const ROUNDS: usize = 1;
/// How long each contender runs in a round.
const TIME: Duration = Duration::from_millis(700);
/// Batches in flight and bytes of a payload.
const LOADS: [(usize, usize); 4] = [(1, 64), (64, 64), (1, LARGE), (64, LARGE)];
const LARGE: usize = 8 * 1024 * 1024;
/// Large payloads that live at the same time, so that a run takes no more than some gigabytes.
const KEPT: u64 = 64;
/// Batches of large payloads in flight by threads that hold one each.
const BLOB_THREADS: usize = 8;

fn main() {
    let folder = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| ".".to_owned())).expect("a folder");
    let contenders: [(&str, fn(&Path, usize, usize) -> Measured); 4] =
        [("bare disk", disk), ("journal", journal), ("fjall", fjall), ("SQLite", sqlite)];
    println!("| in flight | bytes | contender | batches/s | p50 ms | p99 ms | beside the bare disk |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for (in_flight, bytes) in LOADS {
        let mut measured: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            for (index, (name, run)) in contenders.iter().enumerate() {
                let path = folder.path().join(format!("{name}-{in_flight}-{bytes}-{round}"));
                std::fs::create_dir(&path).expect("a folder");
                measured[index].push(run(&path, in_flight, bytes));
                std::fs::remove_dir_all(&path).expect("the folder");
            }
        }
        let rate = |rounds: &[Measured]| median(rounds.iter().map(|round| round.rate).collect());
        let bare = rate(&measured[0]);
        for ((name, _), rounds) in contenders.iter().zip(&measured) {
            let p50 = median(rounds.iter().map(|round| round.p50_ms).collect());
            let p99 = median(rounds.iter().map(|round| round.p99_ms).collect());
            let ratio = rate(rounds) / bare;
            println!("| {in_flight} | {bytes} | {name} | {:.0} | {p50:.2} | {p99:.2} | {ratio:.2} |", rate(rounds));
        }
    }
}

struct Measured {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn of(mut latencies: Vec<Duration>, time: Duration) -> Measured {
    latencies.sort();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    Measured { rate: latencies.len() as f64 / time.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99) }
}

/// Payloads that differ, since a store that finds equal ones has less to do.
fn payload(bytes: usize, number: u64) -> Vec<u8> {
    let mut payload = vec![0x5a; bytes];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

/// So many threads, each with one call after the other; each is told its number and how often it was called.
fn threads(count: usize, call: impl Fn(u64, u64) + Sync) -> Measured {
    let started = Instant::now();
    let over = AtomicBool::new(false);
    let latencies = std::thread::scope(|scope| {
        let run = |thread: u64| {
            let (call, over) = (&call, &over);
            move || {
                let mut latencies = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let called = Instant::now();
                    call(thread, latencies.len() as u64);
                    latencies.push(called.elapsed());
                }
                latencies
            }
        };
        let threads: Vec<_> = (0..count as u64).map(|thread| scope.spawn(run(thread))).collect();
        std::thread::sleep(TIME);
        over.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    of(latencies, started.elapsed())
}

/// What nothing durable is faster than: one write of all that is in flight, and one fdatasync, into a file that was written
/// before.
fn disk(path: &Path, in_flight: usize, bytes: usize) -> Measured {
    let group = if bytes == LARGE { 1 } else { in_flight };
    let buffer = vec![0x5a; bytes * group];
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(path.join("file")).expect("a file");
    let size = 64 * 1024 * 1024_u64;
    (0..8).for_each(|part| file.write_all_at(&vec![0; 8 << 20], part << 23).expect("room"));
    file.sync_all().expect("a disk");
    let (started, mut offset, mut latencies) = (Instant::now(), 0, Vec::new());
    while started.elapsed() < TIME {
        let called = Instant::now();
        file.write_all_at(&buffer, offset).expect("room");
        file.sync_data().expect("a disk");
        latencies.extend(std::iter::repeat_n(called.elapsed(), group));
        offset = (offset + buffer.len() as u64) % (size - buffer.len() as u64 + 1);
    }
    of(latencies, started.elapsed())
}

fn journal(path: &Path, in_flight: usize, bytes: usize) -> Measured {
    let config = Config { blob_bytes: 4 << 30, ..Config::default() };
    let (journal, _) = Journal::open(&path.join("journal"), &config).expect("a journal");
    if bytes == LARGE {
        let kept = Mutex::new(std::collections::VecDeque::new());
        let (journal, kept) = (&journal, &kept);
        return threads(in_flight.min(BLOB_THREADS), |thread, call| {
            let blob = journal.write_blob(&payload(bytes, thread << 32 | call)).expect("room");
            let mut batch = journal.batch();
            let mut kept_now = kept.lock().expect("no panic");
            kept_now.push_back(batch.put_blob(0, &[0; 64], &blob));
            if kept_now.len() as u64 > KEPT {
                batch.remove(kept_now.pop_front().expect("not empty"));
            }
            drop(kept_now);
            let (done, completion) = channel();
            journal.append(batch, move |result| done.send(result.is_ok()).expect("awaited")).expect("room");
            assert!(completion.recv().expect("completed"));
        });
    }
    let (done, completions): (Sender<Instant>, Receiver<Instant>) = channel();
    let payload = payload(bytes, 1);
    let append = |removed| {
        let (done, called) = (done.clone(), Instant::now());
        let mut batch = journal.batch();
        let id = batch.put(0, &payload);
        if let Some(removed) = removed {
            batch.remove(removed);
        }
        let durable = move |result: Result<(), _>| {
            result.expect("a disk");
            drop(done.send(called));
        };
        journal.append(batch, durable).expect("room");
        id
    };
    let mut live = std::collections::VecDeque::new();
    (0..in_flight).for_each(|_| live.push_back(append(None)));
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < TIME {
        latencies.push(completions.recv().expect("a completion").elapsed());
        // What was put is removed a while later, as requests are.
        let removed = if live.len() > 10_000 { live.pop_front() } else { None };
        live.push_back(append(removed));
    }
    of(latencies, started.elapsed())
}

fn fjall(path: &Path, in_flight: usize, bytes: usize) -> Measured {
    let database = Database::builder(path.join("fjall")).open().expect("a database");
    // Large values apart from the tree, as its documentation advises.
    let separation = (bytes == LARGE).then(fjall::KvSeparationOptions::default);
    let options = || KeyspaceCreateOptions::default().with_kv_separation(separation);
    let records = database.keyspace("records", options).expect("a keyspace");
    let insert = |key: u64, value: &[u8]| {
        let mut batch = database.batch();
        batch.insert(&records, key.to_be_bytes(), value);
        if let Some(old) = (key & 0xffff_ffff).checked_sub(if bytes == LARGE { KEPT / 8 } else { 10_000 / 64 }) {
            batch.remove(&records, (key >> 32 << 32 | old).to_be_bytes());
        }
        batch.commit().expect("a disk");
    };
    if bytes == LARGE {
        return threads(in_flight.min(BLOB_THREADS), |thread, call| {
            insert(thread << 32 | call, &payload(bytes, thread << 32 | call));
            database.persist(PersistMode::SyncData).expect("a disk");
        });
    }
    // Its `persist` is a group commit: one at a time, and all that was committed before it began are durable after it.
    let group = Group::default();
    let payload = payload(bytes, 1);
    threads(in_flight, |thread, call| {
        insert(thread << 32 | call, &payload);
        group.wait_for_sync(|| database.persist(PersistMode::SyncData).expect("a disk"));
    })
}

fn sqlite(path: &Path, in_flight: usize, bytes: usize) -> Measured {
    let connection = Connection::open(path.join("sqlite")).expect("a database");
    let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                    CREATE TABLE records (id INTEGER PRIMARY KEY, payload BLOB);";
    connection.execute_batch(settings).expect("a table");
    let insert = |connection: &Connection, key: u64, value: &[u8]| {
        let mut insert = connection.prepare_cached("INSERT INTO records VALUES (?1, ?2)").expect("a statement");
        insert.execute((key as i64, value)).expect("a row");
        if let Some(old) = (key & 0xffff_ffff).checked_sub(if bytes == LARGE { KEPT / 8 } else { 10_000 / 64 }) {
            let mut delete = connection.prepare_cached("DELETE FROM records WHERE id = ?1").expect("a statement");
            delete.execute([(key >> 32 << 32 | old) as i64]).expect("a row");
        }
    };
    // One connection writes at a time; those that wait meanwhile are one transaction, by the first of them.
    let queue: Mutex<Vec<(u64, Arc<Vec<u8>>)>> = Mutex::default();
    let connection = Mutex::new(connection);
    let group = Group::default();
    let small = Arc::new(payload(bytes, 1));
    let count = if bytes == LARGE { in_flight.min(BLOB_THREADS) } else { in_flight };
    threads(count, |thread, call| {
        let key = thread << 32 | call;
        let value = if bytes == LARGE { Arc::new(payload(bytes, key)) } else { small.clone() };
        queue.lock().expect("no panic").push((key, value));
        group.wait_for_sync(|| {
            let connection = connection.lock().expect("no panic");
            let rows = std::mem::take(&mut *queue.lock().expect("no panic"));
            connection.execute_batch("BEGIN").expect("a transaction");
            rows.iter().for_each(|(key, value)| insert(&connection, *key, value));
            connection.execute_batch("COMMIT").expect("a disk");
        });
    })
}

/// Syncs that threads share: one at a time, and each covers whoever came before it began.
#[derive(Default)]
struct Group {
    state: Mutex<GroupState>,
    changed: Condvar,
}

#[derive(Default)]
struct GroupState {
    begun: u64,
    done: u64,
}

impl Group {
    fn wait_for_sync(&self, sync: impl Fn()) {
        let mut state = self.state.lock().expect("no panic");
        // The sync that is under way may have begun too early.
        let needed = state.begun + 1;
        while state.done < needed {
            if state.begun == state.done {
                state.begun += 1;
                drop(state);
                sync();
                state = self.state.lock().expect("no panic");
                state.done = state.begun;
                self.changed.notify_all();
            } else {
                state = self.changed.wait(state).expect("no panic");
            }
        }
    }
}
