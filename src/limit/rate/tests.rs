//! Who is told apart, that all limits are checked before any is charged, and that no crowd resets anybody.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use super::*;

const GET: Method = Method::GET;

/// A limit as the configuration would give it.
fn limit(key: RateKey, count: u32, seconds: u64, burst: u32) -> RateLimit {
    RateLimit {
        name: format!("{count}/{seconds}s by {key:?}").into(),
        is_shared: false,
        count,
        period: Duration::from_secs(seconds),
        burst,
        key,
        cost: 1,
        costs: Vec::new(),
        dry_run: false,
    }
}

fn table(entries: usize) -> Arc<Table> {
    Arc::new(Table::new(entries, RandomState::new(), Instant::now()))
}

fn limits(table: &Arc<Table>, limits: &[RateLimit]) -> Limits {
    Limits::new("route", limits, table).unwrap()
}

/// Sends one request; whether it may pass.
fn passes(limits: &Limits, who: &Who<'_>, now: Instant) -> bool {
    !limits.take(who, Which::All, now).iter().any(Standing::refuses)
}

fn nobody() -> Who<'static> {
    static EMPTY: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
    Who { address: None, method: &GET, headers: &EMPTY, name: None, claim: &|_| None }
}

fn from(address: &str) -> Who<'static> {
    Who { address: Some(address.parse().unwrap()), ..nobody() }
}

fn number(address: u32) -> Who<'static> {
    Who { address: Some(Ipv4Addr::from_bits(address).into()), ..nobody() }
}

#[test]
fn clients_are_told_apart_by_address_and_networks_of_64_bits_are_one() {
    let now = Instant::now();
    let cases = [
        ("192.0.2.1", "192.0.2.2", true),
        ("192.0.2.1", "::ffff:192.0.2.1", false),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", false),
        ("2001:db8::1", "2001:db8:0:1::1", true),
    ];
    for (one, other, apart) in cases {
        let limits = limits(&table(100), &[limit(RateKey::ClientAddress, 1, 60, 1)]);
        assert!(passes(&limits, &from(one), now) && !passes(&limits, &from(one), now));
        assert_eq!(passes(&limits, &from(other), now), apart, "{one} {other}");
    }
}

#[test]
fn fields_names_and_claims_tell_apart_and_those_without_share_a_count_of_their_own() {
    let now = Instant::now();
    let fields = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        headers.extend(values.iter().map(|value| (http::HeaderName::from_static("x-org"), value.parse().unwrap())));
        headers
    };
    let by_field = limits(&table(100), &[limit(RateKey::Header("x-org".parse().unwrap()), 1, 60, 1)]);
    let long = "a".repeat(60_000);
    for values in [&["a"][..], &["b"], &["a", "b"], &["ab"], &[""], &[], &[&long], &[&long[1..]]] {
        let headers = fields(values);
        let who = Who { headers: &headers, ..nobody() };
        assert_eq!((passes(&by_field, &who, now), passes(&by_field, &who, now)), (true, false), "{values:.9?}");
    }
    let by_name = limits(&table(100), &[limit(RateKey::ApiKey, 1, 60, 1)]);
    let by_claim = limits(&table(100), &[limit(RateKey::Claim("org".into()), 1, 60, 1)]);
    for name in [Some("ann"), Some("bob"), None] {
        let who = Who { name, claim: &|claim| name.filter(|_| claim == "org").map(str::to_owned), ..nobody() };
        for limits in [&by_name, &by_claim] {
            assert_eq!((passes(limits, &who, now), passes(limits, &who, now)), (true, false));
        }
    }
}

#[test]
fn a_limit_that_refuses_keeps_the_others_from_being_charged() {
    let now = Instant::now();
    let strict = limit(RateKey::Route, 1, 60, 2);
    let limits = limits(&table(100), &[limit(RateKey::ClientAddress, 1, 60, 10), strict]);
    let sent: Vec<_> = (0..5).map(|_| passes(&limits, &from("192.0.2.1"), now)).collect();
    assert_eq!(sent, [true, true, false, false, false]);
    let standings = limits.look(&from("192.0.2.1"), Which::All, now);
    assert_eq!(standings.iter().map(|standing| standing.remaining).collect::<Vec<_>>(), [8, 0]);
    assert_eq!(standings[1].more_after, Duration::from_secs(60));
}

#[test]
fn a_dry_run_refuses_nobody_and_says_whom_it_would() {
    let now = Instant::now();
    let dry = RateLimit { dry_run: true, ..limit(RateKey::Route, 1, 60, 1) };
    let limits = limits(&table(100), &[dry, limit(RateKey::ClientAddress, 1, 60, 3)]);
    let told: Vec<_> = (0..4)
        .map(|_| limits.take(&from("192.0.2.1"), Which::All, now))
        .map(|standings| (standings[0].exceeded, standings.iter().any(Standing::refuses)))
        .collect();
    assert_eq!(told, [(false, false), (true, false), (true, false), (true, true)]);
}

#[test]
fn methods_have_their_prices_and_what_is_free_always_passes() {
    let now = Instant::now();
    let costs = vec![(Method::POST, 5), (Method::OPTIONS, 0)];
    let limits = limits(&table(100), &[RateLimit { cost: 2, costs, ..limit(RateKey::Route, 1, 60, 8) }]);
    let sent = [Method::POST, Method::POST, Method::GET, Method::GET, Method::OPTIONS]
        .map(|method| passes(&limits, &Who { method: &method, ..nobody() }, now));
    assert_eq!(sent, [true, false, true, false, true]);
}

#[test]
fn before_auth_only_those_are_asked_that_need_no_name() {
    let now = Instant::now();
    let limits = limits(&table(100), &[limit(RateKey::ApiKey, 1, 60, 1), limit(RateKey::ClientAddress, 1, 60, 1)]);
    assert!(limits.need_identity());
    for _ in 0..3 {
        assert_eq!(limits.look(&nobody(), Which::Anonymous, now).len(), 1);
    }
    assert_eq!(limits.take(&nobody(), Which::Anonymous, now)[0].remaining, 0);
    assert!(limits.look(&nobody(), Which::Anonymous, now)[0].refuses());
}

#[test]
fn a_limit_is_found_again_by_what_it_is_and_those_of_one_name_are_one() {
    let now = Instant::now();
    let table = table(100);
    let one = limit(RateKey::Route, 1, 60, 1);
    let of = |route: &str, limit: &RateLimit| Limits::new(route, std::slice::from_ref(limit), &table).unwrap();
    assert!(passes(&of("a", &one), &nobody(), now));
    assert!(!passes(&of("a", &RateLimit { cost: 1, dry_run: false, ..one.clone() }), &nobody(), now));
    assert!(passes(&of("b", &one), &nobody(), now), "another route");
    assert!(passes(&of("a", &RateLimit { burst: 2, ..one.clone() }), &nobody(), now), "another limit");
    let shared = RateLimit { is_shared: true, name: "all".into(), ..one };
    assert!(passes(&of("a", &shared), &nobody(), now));
    assert!(!passes(&of("b", &shared), &nobody(), now), "the same limit in another route");
}

#[test]
fn sixty_four_threads_never_get_one_more_than_the_burst() {
    let now = Instant::now();
    let strict = limit(RateKey::Route, 1, 3_600, 50);
    let loose = limit(RateKey::ClientAddress, 1, 3_600, 100);
    // Both orders: whoever checks the loose one first must not charge it for what the strict one refuses.
    let (table, start, had) = (table(10_000), Barrier::new(64), AtomicU64::new(0));
    let orders = [[loose.clone(), strict.clone()], [strict, loose]].map(|order| limits(&table, &order));
    thread::scope(|scope| {
        for thread in 0..64 {
            let (limits, start, had) = (&orders[thread % 2], &start, &had);
            scope.spawn(move || {
                start.wait();
                let passed = (0..200).filter(|_| passes(limits, &from("192.0.2.1"), now)).count();
                had.fetch_add(passed as u64, Relaxed);
            });
        }
    });
    assert_eq!(had.load(Relaxed), 50);
    assert_eq!(orders[0].look(&from("192.0.2.1"), Which::All, now)[0].remaining, 50, "the loose one was charged");
}

#[test]
fn sixty_four_threads_with_a_clock_get_limit_and_burst_and_no_more() {
    let (count, burst) = (20_000, 100);
    let (table, start, had) = (table(10_000), Barrier::new(64), AtomicU64::new(0));
    let limits = limits(&table, &[limit(RateKey::Route, count, 1, burst)]);
    let began = Instant::now();
    let end = began + Duration::from_millis(300);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                start.wait();
                while Instant::now() < end {
                    had.fetch_add(u64::from(passes(&limits, &nobody(), Instant::now())), Relaxed);
                }
            });
        }
    });
    let most = began.elapsed().as_secs_f64() * f64::from(count) + f64::from(burst);
    let had = had.load(Relaxed) as f64;
    assert!(had <= most, "{had} of {most}");
}

/// The attacker has a password to guess, five tries an hour, and very many addresses. He uses up his tries, floods the
/// table from everywhere, and comes back.
#[test]
fn a_crowd_of_addresses_resets_nobody() {
    let mut now = Instant::now();
    let table = table(1_000);
    let account: http::HeaderName = "x-account".parse().unwrap();
    let tries = limits(&table, &[limit(RateKey::Header(account.clone()), 5, 3_600, 5)]);
    let everybody = limits(&table, &[limit(RateKey::ClientAddress, 10, 3_600, 10)]);
    let headers = HeaderMap::from_iter([(account, "victim".parse().unwrap())]);
    let guess = Who { headers: &headers, ..nobody() };
    for _ in 0..5 {
        assert!(passes(&tries, &guess, now));
    }
    let mut passed = 0_u64;
    for address in 0..100_000 {
        now += Duration::from_micros(100);
        // Spread over all networks that there are.
        passed += u64::from(passes(&everybody, &number(u32::reverse_bits(address)), now));
        assert!(address % 1_000 != 0 || !passes(&tries, &guess, now), "the count was reset by {address} addresses");
    }
    // Each address that has its own number had one, and each part of the world ten in all, and a few since.
    assert!(passed < 1_000 + 256 * 11, "{passed}");
    assert!(table.numbers.len() <= 1_000 + 256, "{}", table.numbers.len());
}

/// His own count is not reset either, by filling the table with addresses of his own; and others do not suffer by it.
#[test]
fn a_flood_from_one_network_gets_little_and_hurts_only_itself() {
    let now = Instant::now();
    let table = table(500);
    let limits = limits(&table, &[limit(RateKey::ClientAddress, 10, 60, 10)]);
    let mut passed = 0;
    for _ in 0..12 {
        for address in 0..3_000_u128 {
            // All in one /32, as one owner of IPv6 has it.
            let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | address << 64);
            passed += usize::from(passes(&limits, &Who { address: Some(address.into()), ..nobody() }, now));
        }
    }
    assert!(passed <= 10 * 376 + 10, "{passed}");
    // Who comes from elsewhere shares a number with others, but not with him.
    let elsewhere = (1_u32..=20).filter(|part| passes(&limits, &number(part << 24), now)).count();
    assert!(elsewhere >= 18, "{elsewhere}");
    assert!(table.numbers.len() < 500);
    // When all have what they may have again, there is room as before.
    let later = now + Duration::from_secs(61);
    (0..200).for_each(|address| assert!(passes(&limits, &number(address), later)));
    assert!(table.numbers.len() < 500, "{}", table.numbers.len());
}

#[test]
fn who_has_taken_more_since_is_not_forgotten() {
    let now = Instant::now();
    let limits = limits(&table(100), &[limit(RateKey::ClientAddress, 2, 60, 2)]);
    assert!(passes(&limits, &number(1), now));
    assert!(passes(&limits, &number(1), now + Duration::from_secs(29)));
    // Newcomers make the table look for those whose time is over, and that of his first request is.
    let later = now + Duration::from_secs(31);
    (2..20).for_each(|address| assert!(passes(&limits, &number(address), later)));
    assert_eq!([passes(&limits, &number(1), later), passes(&limits, &number(1), later)], [true, false]);
}

#[test]
fn a_flood_of_keys_of_one_limit_leaves_room_for_another() {
    let now = Instant::now();
    let table = table(1_000);
    let flooded = limits(&table, &[limit(RateKey::ClientAddress, 1, 60, 1)]);
    let other = Limits::new("other", &[limit(RateKey::ClientAddress, 1, 60, 1)], &table).unwrap();
    let had = (0..50_000).filter(|address| passes(&flooded, &number(*address), now)).count();
    assert!((600..800).contains(&had), "{had} of three quarters of 1000, and a few that share");
    // All in one network: if they shared a number, the second would be refused.
    (0..100).for_each(|address| assert!(passes(&other, &number(address), now), "{address}"));
}

#[test]
fn another_size_forgets_nobody() {
    let now = Instant::now();
    let table = table(1_000);
    let limits = limits(&table, &[limit(RateKey::ClientAddress, 1, 60, 1)]);
    (0..500).for_each(|address| assert!(passes(&limits, &number(address << 16), now)));
    table.resize(10);
    (0..500).for_each(|address| assert!(!passes(&limits, &number(address << 16), now)));
    table.resize(10_000);
    (500..1_000).for_each(|address| assert!(passes(&limits, &number(address << 16), now)));
}
