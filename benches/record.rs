//! What does it cost to count one request? All that a request adds to, alone and while other threads add to the same.
//!
//! Run with `cargo bench --bench record`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may stop at once")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{StatusCode, Version};
use portcullis::count::Words;
use portcullis::observe::metrics::RouteCounts;

const LONG_ENOUGH: Duration = Duration::from_millis(500);

fn main() {
    println!("{:44} {:>10}", "one request", "ns");
    println!("{:44} {:>10.1}", "alone", per_request(0));
    println!("{:44} {:>10.1}", "while another thread does the same", per_request(1));
}

/// The time of one, with so many other threads that do the same for the same route and backend.
fn per_request(others: usize) -> f64 {
    let (route, outcomes, stop) = (RouteCounts::default(), Words::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    record(&route, &outcomes);
                }
            });
        }
        let (start, mut requests) = (Instant::now(), 0_u64);
        while start.elapsed() < LONG_ENOUGH {
            for _ in 0..1000 {
                requests += 1;
                record(&route, &outcomes);
            }
        }
        stop.store(true, Relaxed);
        start.elapsed().as_secs_f64() * 1e9 / requests as f64
    })
}

/// What `proxy::record` adds for a request to a backend that succeeds.
fn record(route: &RouteCounts, outcomes: &Words) {
    outcomes.say(black_box("ok"));
    route.answered(black_box(Some(StatusCode::OK)), black_box(Version::HTTP_11));
    route.total.took(black_box(Duration::from_micros(730)));
    route.first_byte.took(black_box(Duration::from_micros(610)));
    route.bytes_in.add(black_box(0));
    route.bytes_out.add(black_box(1024));
}
