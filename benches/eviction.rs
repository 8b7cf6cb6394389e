//! Which order of eviction finds more? The hit ratios of both, on the real store, for a few traces.
//!
//! Run with `cargo bench --bench eviction`; a number behind it is how many requests a trace has. The objects are from 0.5
//! to 32 KiB, small ones as often as large ones, and the store has room for a part of them. The first quarter of a trace
//! only fills it. What is printed is the share of the others that were found.
//!
//! With `-- million lru` or `-- million s3_fifo` it puts a million different objects through a store of 64 MiB instead, and
//! prints how much the memory of the process grew, at its highest.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may stop at once")]

mod objects;

use std::time::Instant;

use fastrand::Rng;
use portcullis::cache::key::{Key, Writing};
use portcullis::cache::store::Store;
use portcullis::config::Eviction;

use self::objects::put;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const OBJECTS: usize = 20_000;
const REQUESTS: usize = 500_000;

/// What makes a trace: how unequal the objects are, and what disturbs that.
struct Trace {
    name: &'static str,
    exponent: f64,
    disturbance: Disturbance,
}

enum Disturbance {
    None,
    /// So many of the requests are for something that is never asked for again.
    Once(f64),
    /// Every so many requests, each object takes the popularity of the next.
    Drift(usize),
    /// Every so many requests somebody goes through half of all objects, one after the other.
    Scan(usize),
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    if has("million") {
        return million(if has("s3_fifo") { Eviction::S3Fifo } else { Eviction::Lru });
    }
    let requests = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(REQUESTS);
    println!("{:24} {:>6} {:>8} {:>8} {:>8} {:>8}", "trace", "store", "lru", "s3_fifo", "lru us", "s3 us");
    let trace = |name, exponent, disturbance| Trace { name, exponent, disturbance };
    for trace in [
        trace("zipf 0.8", 0.8, Disturbance::None),
        trace("zipf 1.0", 1.0, Disturbance::None),
        trace("zipf 0.8, 20% once", 0.8, Disturbance::Once(0.2)),
        trace("zipf 1.0, 20% once", 1.0, Disturbance::Once(0.2)),
        trace("zipf 0.8, scans", 0.8, Disturbance::Scan(60_000)),
        trace("zipf 0.8, drifting", 0.8, Disturbance::Drift(40)),
        trace("zipf 0.8, drifting fast", 0.8, Disturbance::Drift(4)),
    ] {
        let asked = trace.requests(requests);
        for part in [0.02, 0.1, 0.3] {
            let [lru, s3_fifo] = [Eviction::Lru, Eviction::S3Fifo].map(|eviction| replay(&asked, part, eviction));
            println!(
                "{:24} {:>5.0}% {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
                trace.name,
                part * 100.0,
                lru.0,
                s3_fifo.0,
                lru.1,
                s3_fifo.1
            );
        }
    }
}

impl Trace {
    /// The objects that are asked for, in order.
    fn requests(&self, count: usize) -> Vec<usize> {
        let mut total = 0.0;
        let sums: Vec<f64> = (1..=OBJECTS)
            .map(|rank| {
                total += (rank as f64).powf(-self.exponent);
                total
            })
            .collect();
        let mut rng = Rng::with_seed(7);
        (0..count)
            .map(|index| {
                let drawn = rng.f64() * total;
                let rank = sums.partition_point(|sum| *sum < drawn).min(OBJECTS - 1);
                match self.disturbance {
                    Disturbance::Once(share) if rng.f64() < share => OBJECTS + index,
                    Disturbance::Drift(every) => (rank + index / every) % OBJECTS,
                    Disturbance::Scan(every) if index % every < OBJECTS / 2 => index % every * 2,
                    Disturbance::None | Disturbance::Once(_) | Disturbance::Scan(_) => rank,
                }
            })
            .collect()
    }
}

fn size(object: usize) -> usize {
    (512.0 * 2_f64.powf(Rng::with_seed(object as u64).f64() * 6.0)) as usize
}

/// What an object takes besides its body: measured with a store of one.
fn overhead() -> usize {
    let store: &'static Store = Box::leak(Box::new(Store::new(1 << 20, Eviction::Lru)));
    put(store, key(0), 0);
    store.bytes() as usize
}

/// Hits in percent, and microseconds for a request.
fn replay(asked: &[usize], part: f64, eviction: Eviction) -> (f64, f64) {
    let all = (0..OBJECTS).map(size).sum::<usize>() + OBJECTS * overhead();
    // Leaked, as that of the process is; emptied below.
    let store: &'static Store = Box::leak(Box::new(Store::new((all as f64 * part) as u64, eviction)));
    let (filling, counted) = asked.split_at(asked.len() / 4);
    for object in filling {
        ask(store, *object);
    }
    let start = Instant::now();
    let hits = counted.iter().filter(|object| ask(store, **object)).count();
    let each = start.elapsed().as_secs_f64() * 1e6 / counted.len() as f64;
    assert!(store.bytes() <= store.size());
    store.set_size(0);
    (hits as f64 * 100.0 / counted.len() as f64, each)
}

fn million(eviction: Eviction) {
    const SIZE: u64 = 64 << 20;
    let store: &'static Store = Box::leak(Box::new(Store::new(SIZE, eviction)));
    let before = resident();
    for (kind, length) in [("1 to 4 KiB", 4096), ("no body", 1)] {
        store.set_size(0);
        store.set_size(SIZE);
        let mut highest = 0;
        for object in 0..1_000_000 {
            put(store, key(object), length / 4 + object * 7 % (length - length / 4));
            if object % 1000 == 0 {
                highest = highest.max(resident());
            }
        }
        assert!(store.bytes() <= store.size());
        let grown = highest.saturating_sub(before) >> 20;
        println!(
            "{eviction:?}, {kind}: {} objects, {} MiB counted, {grown} MiB grown",
            store.len(),
            store.bytes() >> 20
        );
    }
}

/// Resident memory, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).map_or(0, |pages: u64| pages * 4096)
}

/// Whether it was there; now it is.
fn ask(store: &'static Store, object: usize) -> bool {
    let key = key(object);
    let found = store.find(&key, None).is_some();
    if !found {
        put(store, key, size(object));
    }
    found
}

fn key(object: usize) -> Key {
    Writing::begin("GET", |text| text.extend_from_slice(format!("https://example.com/{object}").as_bytes())).end()
}
