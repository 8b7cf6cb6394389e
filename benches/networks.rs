//! What does it cost to ask whether an address is on a list? Lists of 10, 1,000 and 100,000 networks.
//!
//! Run with `cargo bench --bench networks`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and may stop at once")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portcullis::filter::networks::Networks;

const LONG_ENOUGH: Duration = Duration::from_millis(200);

fn main() {
    println!("{:28} {:>8} {:>10} {:>10} {:>10}", "networks", "count", "build ms", "on it ns", "not ns");
    for count in [10, 1_000, 100_000] {
        measure("IPv4, everywhere", count, |bits| (Ipv4Addr::from_bits(bits as u32).into(), 24));
        measure("IPv6, everywhere in 2000::/3", count, |bits| (Ipv6Addr::from_bits(bits >> 3 | 1 << 125).into(), 48));
        // The worst that there is: all but one in a corner.
        measure("IPv4, in one corner", count, |bits| (Ipv4Addr::from_bits(bits as u32 % (1 << 20)).into(), 32));
    }
}

fn measure(name: &str, count: usize, network: fn(u128) -> (IpAddr, u8)) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut addresses: Vec<_> = (0..count).map(|_| network(random.u128(..))).collect();
    addresses.push(("255.255.255.255".parse().unwrap(), 32));
    let began = Instant::now();
    let set = Networks::new(addresses.iter().map(|(address, prefix)| IpNet::new(*address, *prefix).unwrap().trunc()));
    let build = began.elapsed();
    random.shuffle(&mut addresses);
    let on: Vec<_> = addresses.iter().map(|(address, _)| *address).collect();
    let not: Vec<_> =
        std::iter::repeat_with(|| network(random.u128(..)).0).filter(|a| !set.contains(*a)).take(1_000).collect();
    println!(
        "{name:28} {count:>8} {:>10.1} {:>10.1} {:>10.1}",
        build.as_secs_f64() * 1e3,
        ask(&set, &on),
        ask(&set, &not)
    );
}

fn ask(set: &Networks, addresses: &[IpAddr]) -> f64 {
    let (start, mut asked) = (Instant::now(), 0_u64);
    while start.elapsed() < LONG_ENOUGH {
        for address in addresses.iter().take(100_000) {
            asked += 1;
            black_box(set.contains(black_box(*address)));
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / asked as f64
}
