//! Durable appends: the bare disk, the journal, fjall and SQLite, one after the other in each round.
//!
//! This many batches are in flight, and each is durable before it counts. The journal takes them one by one, as its
//! users do. The stores have no completions, so a thread collects for them what waits, commits it as one transaction,
//! and says so: what would have to be written around them. What is put is removed a while later, as requests are.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use offload_journal::{BlobDigest, Config, Journal};
use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};

/// Rounds, of which the medians count.
const ROUNDS: usize = 7;
/// How long each contender runs in a round.
const TIME: Duration = Duration::from_millis(600);
/// Batches in flight and bytes of a payload.
const LOADS: [(usize, usize); 4] = [(1, 64), (64, 64), (1, LARGE), (64, LARGE)];
const LARGE: usize = 8 * 1024 * 1024;
/// Small and large payloads that live at the same time.
const KEPT: u64 = 10_000;
const KEPT_LARGE: u64 = 128;

fn main() {
    let folder = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| "target".to_owned()))
        .expect("a folder");
    let contenders: [(&str, fn(&Path, usize, usize) -> Measured); 4] =
        [("bare disk", disk), ("journal", journal), ("fjall", fjall), ("SQLite", sqlite)];
    println!(
        "| in flight | bytes | contender | batches/s | p50 ms | p99 ms | CPU µs | beside the bare disk |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (in_flight, bytes) in LOADS {
        let mut measured: Vec<Vec<Measured>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            for (index, (name, run)) in contenders.iter().enumerate() {
                let path = folder.path().join(format!("{name}-{in_flight}-{bytes}-{round}"));
                std::fs::create_dir(&path).expect("a folder");
                let cpu = clock_gettime(ClockId::ProcessCPUTime);
                let mut of_run = run(&path, in_flight, bytes);
                let cpu = clock_gettime(ClockId::ProcessCPUTime) - cpu;
                of_run.cpu_us = (cpu.tv_sec as f64 * 1e6 + cpu.tv_nsec as f64 / 1e3) / of_run.count;
                measured[index].push(of_run);
                std::fs::remove_dir_all(&path).expect("the folder");
            }
        }
        let rate = |rounds: &[Measured]| median(rounds.iter().map(|round| round.rate).collect());
        let bare = rate(&measured[0]);
        for ((name, _), rounds) in contenders.iter().zip(&measured) {
            let p50 = median(rounds.iter().map(|round| round.p50_ms).collect());
            let p99 = median(rounds.iter().map(|round| round.p99_ms).collect());
            let cpu = median(rounds.iter().map(|round| round.cpu_us).collect());
            let ratio = rate(rounds) / bare;
            println!(
                "| {in_flight} | {bytes} | {name} | {:.0} | {p50:.2} | {p99:.2} | {cpu:.1} | {ratio:.2} |",
                rate(rounds)
            );
        }
    }
}

struct Measured {
    count: f64,
    rate: f64,
    /// Of all threads, with opening and closing, a batch.
    cpu_us: f64,
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
    let count = latencies.len() as f64;
    Measured { count, cpu_us: 0.0, rate: count / time.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99) }
}

/// Incompressible.
fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn kept(bytes: usize) -> u64 {
    if bytes == LARGE { KEPT_LARGE } else { KEPT }
}

/// Commits groups of all that is in flight, one after the other: keys to put, and those to remove.
fn grouped(in_flight: usize, bytes: usize, mut commit: impl FnMut(Range<u64>, Range<u64>)) -> Measured {
    let (started, mut latencies, mut key) = (Instant::now(), Vec::new(), 0);
    while started.elapsed() < TIME {
        let called = Instant::now();
        let put = key..key + in_flight as u64;
        commit(put.clone(), put.start.saturating_sub(kept(bytes))..put.end.saturating_sub(kept(bytes)));
        latencies.extend(std::iter::repeat_n(called.elapsed(), in_flight));
        key = put.end;
    }
    of(latencies, started.elapsed())
}

/// Commits what another thread hands over one by one: all that waits is one group.
fn collected(in_flight: usize, bytes: usize, mut commit: impl FnMut(Range<u64>, Range<u64>)) -> Measured {
    let (batches, waiting): (Sender<(u64, Instant)>, Receiver<(u64, Instant)>) = channel();
    let (done, completions) = channel();
    std::thread::scope(|scope| {
        let load = scope.spawn(move || {
            let hand_over = |key| batches.send((key, Instant::now())).expect("a store");
            (0..in_flight as u64).for_each(hand_over);
            let (started, mut latencies) = (Instant::now(), Vec::new());
            // The first group is one batch alone.
            while started.elapsed() < TIME || latencies.len() < 2 * in_flight {
                let called: Instant = completions.recv().expect("a completion");
                latencies.push(called.elapsed());
                hand_over((in_flight + latencies.len() - 1) as u64);
            }
            of(latencies, started.elapsed())
        });
        while let Ok(first) = waiting.recv() {
            let group: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
            let put = group[0].0..group[group.len() - 1].0 + 1;
            commit(put.clone(), put.start.saturating_sub(kept(bytes))..put.end.saturating_sub(kept(bytes)));
            // Nobody waits for the last ones.
            group.into_iter().for_each(|(_, called)| done.send(called).unwrap_or_default());
        }
        load.join().expect("no panic")
    })
}

/// What nothing durable is faster than: writes into a file that was written before, and one fdatasync for all that is
/// in flight.
fn disk(path: &Path, in_flight: usize, bytes: usize) -> Measured {
    let payload = payload(bytes);
    let small = payload.repeat(in_flight.min(LARGE / bytes));
    let file =
        OpenOptions::new().create(true).truncate(true).write(true).open(path.join("file")).expect("a file");
    // Large enough that no page is written twice before it is synced.
    let size = (in_flight * bytes).max(8 << 23) as u64;
    (0..size >> 23).for_each(|part| file.write_all_at(&vec![0; 8 << 20], part << 23).expect("room"));
    file.sync_all().expect("a disk");
    let mut offset = 0;
    grouped(in_flight, bytes, |_, _| {
        for _ in 0..(in_flight * bytes).div_ceil(small.len()) {
            if offset + small.len() as u64 > size {
                offset = 0;
            }
            file.write_all_at(&small, offset).expect("room");
            offset += small.len() as u64;
        }
        file.sync_data().expect("a disk");
    })
}

fn journal(path: &Path, in_flight: usize, bytes: usize) -> Measured {
    let config = Config { blob_bytes: 8 << 30, ..Config::default() };
    let (journal, _) = Journal::open(&path.join("journal"), &config).expect("a journal");
    let payload = payload(bytes);
    if bytes == LARGE { blobs(&journal, &payload, in_flight) } else { records(&journal, &payload, in_flight) }
}

fn records(journal: &Journal, payload: &[u8], in_flight: usize) -> Measured {
    let (done, completions): (Sender<Instant>, Receiver<Instant>) = channel();
    let append = |removed| {
        let (done, called) = (done.clone(), Instant::now());
        let mut batch = journal.batch();
        let id = batch.put(0, payload);
        if let Some(removed) = removed {
            batch.remove(removed);
        }
        let durable = move |result: Result<(), _>| {
            result.expect("a disk");
            // Nobody waits for the last ones.
            let _ = done.send(called);
        };
        journal.append(batch, durable).expect("room");
        id
    };
    let mut live = VecDeque::new();
    (0..in_flight).for_each(|_| live.push_back(append(None)));
    let (started, mut latencies) = (Instant::now(), Vec::new());
    while started.elapsed() < TIME {
        latencies.push(completions.recv().expect("a completion").elapsed());
        let removed = if live.len() as u64 > KEPT { live.pop_front() } else { None };
        live.push_back(append(removed));
    }
    of(latencies, started.elapsed())
}

/// Blobs are written by their users' threads. Their digests are known there, as a module's is, and are not computed
/// here.
fn blobs(journal: &Journal, payload: &[u8], in_flight: usize) -> Measured {
    let (started, over, number) = (Instant::now(), AtomicBool::new(false), AtomicU64::new(0));
    let live = Mutex::new(VecDeque::new());
    let put_one = || {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let blob = journal.write_blob(BlobDigest(digest), payload).expect("room");
        let mut batch = journal.batch();
        {
            let mut live = live.lock().expect("no panic");
            live.push_back(batch.put_blob(0, &[0; 64], &blob));
            if live.len() as u64 > KEPT_LARGE {
                batch.remove(live.pop_front().expect("not empty"));
            }
        }
        let (done, completion) = channel();
        journal.append(batch, move |result| done.send(result.is_ok()).expect("awaited")).expect("room");
        assert!(completion.recv().expect("completed"));
    };
    let put_many = || {
        let mut latencies = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let called = Instant::now();
            put_one();
            latencies.push(called.elapsed());
        }
        latencies
    };
    let latencies = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight).map(|_| scope.spawn(put_many)).collect();
        std::thread::sleep(TIME);
        over.store(true, Ordering::Relaxed);
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    of(latencies, started.elapsed())
}

fn fjall(path: &Path, in_flight: usize, bytes: usize) -> Measured {
    let database = Database::builder(path.join("fjall")).open().expect("a database");
    // Large values apart from the tree, as its documentation advises.
    let separation = || (bytes == LARGE).then(KvSeparationOptions::default);
    let options = || KeyspaceCreateOptions::default().with_kv_separation(separation());
    let records = database.keyspace("records", options).expect("a keyspace");
    let payload = payload(bytes);
    collected(in_flight, bytes, |put, removed| {
        let mut batch = database.batch();
        put.for_each(|key| batch.insert(&records, key.to_be_bytes(), payload.as_slice()));
        removed.for_each(|key| batch.remove(&records, key.to_be_bytes()));
        batch.commit().expect("a disk");
        database.persist(PersistMode::SyncData).expect("a disk");
    })
}

fn sqlite(path: &Path, in_flight: usize, bytes: usize) -> Measured {
    let connection = Connection::open(path.join("sqlite")).expect("a database");
    let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                    CREATE TABLE records (id INTEGER PRIMARY KEY, payload BLOB);";
    connection.execute_batch(settings).expect("a table");
    let payload = payload(bytes);
    let mut insert = connection.prepare("INSERT INTO records VALUES (?1, ?2)").expect("a statement");
    let mut delete = connection.prepare("DELETE FROM records WHERE id = ?1").expect("a statement");
    collected(in_flight, bytes, |put, removed| {
        connection.execute_batch("BEGIN").expect("a transaction");
        put.for_each(|key| assert_eq!(insert.execute((key as i64, payload.as_slice())).expect("a row"), 1));
        removed.for_each(|key| assert_eq!(delete.execute([key as i64]).expect("a row"), 1));
        connection.execute_batch("COMMIT").expect("a disk");
    })
}
