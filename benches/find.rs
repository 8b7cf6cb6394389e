//! What does finding a route cost? The first and the last of 1, 100 and 10,000 routes.
//!
//! Run with `cargo bench --bench find`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may stop at once")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use portcullis::config::{HostPattern, Match, PathPattern};
use portcullis::route::{RequestView, Table};

const LONG_ENOUGH: Duration = Duration::from_millis(200);

fn main() {
    println!("{:24} {:>8} {:>12} {:>12} {:>12}", "routes", "count", "first ns", "last ns", "none ns");
    for count in [1, 100, 10_000] {
        measure("a host each", count, |n| (format!("host{n}.example.com"), "/v1".into()));
        measure("a path each", count, |n| ("example.com".into(), format!("/service{n}/v1")));
    }
}

fn measure(name: &str, count: usize, place: fn(usize) -> (String, String)) {
    let route = |n| {
        let (host, path) = place(n);
        let (hosts, path) = (vec![HostPattern::Exact(host)], PathPattern::Prefix(path));
        (Match { hosts, path, ..Match::default() }, n)
    };
    let table = Table::new((0..count).map(route).collect());
    let find = |n| {
        let (host, path) = place(n);
        per_find(&table, &host, &format!("{path}/users/17"))
    };
    println!("{name:24} {count:>8} {:>12.1} {:>12.1} {:>12.1}", find(0), find(count - 1), find(count));
}

fn per_find(table: &Table<usize>, host: &str, path: &str) -> f64 {
    let headers = HeaderMap::new();
    let head = RequestView { listener: None, host, path, method: &Method::GET, headers: &headers, query: None };
    let (start, mut finds) = (Instant::now(), 0_u64);
    while start.elapsed() < LONG_ENOUGH {
        for _ in 0..100 {
            finds += 1;
            black_box(table.find(black_box(&head)));
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / finds as f64
}
