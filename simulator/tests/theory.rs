//! The simulator beside queueing theory: what has a closed form comes out as that says, within its confidence interval,
//! and within one percent of a mean over a million arrivals.
//!
//! The queue is the gateway's own dispatcher. With one slot for each worker a guest runs to its end, so that service is
//! first come, first served. With many slots and long programs, slices go round: processor sharing. Programs of one
//! slice and of two are two classes of priority.

use std::path::Path;

use offload_simulator::clock::SECOND;
use offload_simulator::replicas::{self, Unwatched};
use offload_simulator::scenario::Scenario;
use offload_simulator::statistics::{Estimate, Histogram};

/// Requests of all replicas together.
const ARRIVALS: f64 = 1_000_000.0;
const REPLICAS: usize = 10;

/// A gateway with devices that ask independently of each other: `(program, requests a second)`.
struct Station {
    workers: usize,
    slots: usize,
    slice: &'static str,
    /// A time's TOML, and requests a second.
    classes: Vec<(String, f64)>,
}

impl Station {
    /// Mean times in the system by class, in seconds, over replicas; of all together as well.
    fn simulate(&self, arrivals: f64) -> (Vec<Estimate>, Estimate) {
        let rate: f64 = self.classes.iter().map(|(_, rate)| rate).sum();
        let duration = (arrivals / REPLICAS as f64 / rate * SECOND as f64) as u64;
        let Self { workers, slots, slice, classes } = self;
        let mut text = format!(
            "duration = \"{duration}ns\"\n[gateway.g]\nworkers = {workers}\nslots = {slots}\nslice = \"{slice}\"\nticks = false\n\
             slot_share = 1.0\naccount_share = 1.0\nqueue_share = 1.0\nper_principal = 10000000\ntotal = 10000000\n\
             bytes_per_principal = \"1024GiB\"\nbytes_total = \"1024GiB\"\ncpu = \"365d\"\nwall = \"365d\"\n"
        );
        for (number, (time, rate)) in classes.iter().enumerate() {
            text += &format!(
                "[program.p{number}]\ntime = {time}\n[device.d{number}]\nprogram = \"p{number}\"\n\
                 arrival = {{ poisson = \"{rate}/s\" }}\n"
            );
            // Accounts would have equal parts.
            if number > 0 {
                text += "account = \"d0\"\n";
            }
        }
        let scenario =
            Scenario::parse(&text, Path::new("theory.toml")).unwrap_or_else(|error| panic!("{error}"));
        let observations = replicas::run(&scenario, 42, REPLICAS, None, &Unwatched);
        // A fortieth is warm-up: some thousand requests.
        let mean = |groups: &[usize]| {
            let of_each = observations.iter().map(|of| {
                let mut latency = Histogram::default();
                groups.iter().flat_map(|group| &of.recorder.groups()[*group][5..]).for_each(|sample| {
                    latency.merge(&sample.latency);
                });
                latency.mean() / SECOND as f64
            });
            Estimate::of(&of_each.collect::<Vec<_>>())
        };
        let all: Vec<usize> = (0..classes.len()).collect();
        (all.iter().map(|class| mean(&[*class])).collect(), mean(&all))
    }
}

/// It is within its interval, or nearly: one of twenty intervals of 95 % does not hold what is true, and within one
/// percent.
fn assert_is(found: Estimate, expected: f64, what: &str) {
    assert_is_within(0.01, found, expected, what);
}

/// Fewer arrivals are sure of less.
fn assert_is_within(part: f64, found: Estimate, expected: f64, what: &str) {
    let half = found.half_width.unwrap();
    println!("{what}: {:.6} ± {half:.6} s, expected {expected:.6} s", found.mean);
    assert!((found.mean - expected).abs() <= 1.5 * half, "{what}: {found:?}, expected {expected}");
    assert!((found.mean - expected).abs() <= part * expected, "{what}: {found:?}, expected {expected}");
}

/// With one slot a worker, which serves in the order of arrival.
fn first_come_first_served(workers: usize, time: &str, rate: f64) -> Estimate {
    let classes = vec![(time.to_owned(), rate)];
    Station { workers, slots: 1, slice: "1h", classes }.simulate(ARRIVALS).1
}

#[test]
fn m_m_1() {
    // 1 / (μ - λ).
    let found = first_come_first_served(1, "{ exponential = \"10ms\" }", 50.0);
    assert_is(found, 1.0 / (100.0 - 50.0), "M/M/1 at 50 %");
}

#[test]
fn m_d_1() {
    // Pollaczek and Khinchine: s + λ s² / (2 (1 - ρ)).
    let (rate, service) = (70.0, 0.01);
    let expected = service + rate * service * service / (2.0 * (1.0 - rate * service));
    assert_is(first_come_first_served(1, "\"10ms\"", rate), expected, "M/D/1 at 70 %");
}

#[test]
fn m_g_1() {
    // The same with the second moment of a mix: half take 4 ms, half 16 ms.
    let (rate, service, second) = (60.0, 0.01, (0.004_f64.powi(2) + 0.016_f64.powi(2)) / 2.0);
    let expected = service + rate * second / (2.0 * (1.0 - rate * service));
    let mix = "{ mix = [{ time = \"4ms\" }, { time = \"16ms\" }] }";
    assert_is(first_come_first_served(1, mix, rate), expected, "M/G/1 at 60 %");
}

#[test]
fn m_m_c() {
    for (workers, rate) in [(2, 140.0), (8, 560.0)] {
        // A. K. Erlang's formula for waiting.
        let (servers, load) = (workers as f64, rate * 0.01);
        let (mut term, mut sum) = (1.0, 0.0);
        for number in 0..workers {
            sum += term;
            term *= load / (number + 1) as f64;
        }
        let waits = term / (1.0 - load / servers) / (sum + term / (1.0 - load / servers));
        let expected = 0.01 + waits / (servers * 100.0 - rate);
        let found = first_come_first_served(workers, "{ exponential = \"10ms\" }", rate);
        assert_is(found, expected, &format!("M/M/{workers} at 70 %"));
    }
}

#[test]
fn m_g_1_with_two_classes_of_priority() {
    // Short guests take a slice, long ones two. Each first slice goes before each second one, and none is interrupted:
    // A. Cobham's formula for the first slices, which come with the requests. Second slices come when first ones end,
    // so their wait follows from the conservation of work (L. Kleinrock, Queueing Systems II, 1976, section 3.4).
    let (slice, short, long) = (0.0025, 80.0, 40.0);
    let classes = vec![("\"2500us\"".to_owned(), short), ("\"5ms\"".to_owned(), long)];
    let station = Station { workers: 1, slots: 1024, slice: "2500us", classes };
    let (found, _) = station.simulate(ARRIVALS);
    let all = short + long;
    // Of the slice that runs when a request comes.
    let residual = (all + long) * slice * slice / 2.0;
    let first = residual / (1.0 - all * slice);
    let second_moment = (short * slice * slice + long * 4.0 * slice * slice) / all;
    let load = (all + long) * slice;
    let work = all * second_moment / (2.0 * (1.0 - load));
    // Work = what waits for its first slice, what waits for its second, and what is left of what runs.
    let left = residual + long * slice * slice;
    let second = (work - left - short * first * slice - long * first * 2.0 * slice) / (long * slice);
    assert_is(found[0], first + slice, "M/G/1 with priorities, one slice");
    assert_is(found[1], first + slice + second + slice, "M/G/1 with priorities, two slices");
}

#[test]
fn m_g_1_with_processor_sharing() {
    // Whatever the distribution, a guest takes its time by 1 - ρ: beside it there are ρ / (1 - ρ) others in the mean,
    // each of which gets as much (L. Kleinrock, Queueing Systems II, 1976, section 4.4). Slices are finite: a guest's
    // first one comes before those of all others, at the end of the one that runs, so that one slice less waits for the
    // others'. What a guest takes before it shares alike (12.8 ms) is less than a slice.
    let (rate, service, slice) = (0.25, (1.0 + 3.0) / 2.0, 0.02);
    let classes = vec![("\"1s\"".to_owned(), rate / 2.0), ("\"3s\"".to_owned(), rate / 2.0)];
    let station = Station { workers: 1, slots: 1024, slice: "20ms", classes };
    let (found, all) = station.simulate(ARRIVALS);
    let load = rate * service;
    let expected = |time: f64| time / (1.0 - load) - slice * load / (1.0 - load) + load * slice / 2.0;
    assert_is(all, expected(service), "M/G/1-PS, all");
    assert_is(found[0], expected(1.0), "M/G/1-PS, of 1 s");
    assert_is(found[1], expected(3.0), "M/G/1-PS, of 3 s");
}
