//! Tests of the tables.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::*;

fn row(backend: &str, state: State) -> Row {
    Row {
        backend: backend.into(),
        state,
        state_left: None,
        on_trial: false,
        weight: 1,
        tier: 0,
        in_flight: 0,
        most: None,
        left: None,
        requests: 0,
        rate: None,
        errors: 0,
        p50: None,
        p99: None,
        failures_in_row: 0,
        last_healthy: None,
        last_error: None,
    }
}

fn table(rows: Vec<Row>) -> Report {
    Report { tables: vec![Table { upstream: "app".into(), waiting: None, rows }], ..Report::default() }
}

fn three() -> Report {
    table(vec![
        Row {
            weight: 3,
            in_flight: 12,
            rate: Some(140.4),
            p50: Some(Duration::from_micros(1200)),
            p99: Some(Duration::from_millis(35)),
            last_healthy: Some(Duration::from_secs(7)),
            ..row("127.0.0.1:8001", State::Healthy)
        },
        Row {
            errors: 17,
            failures_in_row: 5,
            rate: Some(0.0),
            last_healthy: Some(Duration::from_secs(90)),
            last_error: Some(("connection refused".into(), Duration::from_secs(3))),
            ..row("127.0.0.1:8002", State::Unreachable)
        },
        Row { tier: 1, ..row("spare", State::Pending) },
    ])
}

#[test]
fn the_cache_has_a_line_where_a_route_has_one() {
    let mut report = table(vec![row("a", State::Healthy)]);
    assert!(!render(&report, None, false).contains("cache"));
    let cache = |hits, misses, objects, bytes| CacheLine { hits, misses, objects, bytes, size: 256 << 20 };
    for (cache, expected) in [
        (cache(93, 7, 340, 12_900_000), "93 % hits of 100 requests since the last table, 340 objects, 13 of 256 MiB"),
        (cache(0, 1, 1, 900_000), "0 % hits of 1 request since the last table, 1 object, 0.9 of 256 MiB"),
        (cache(0, 0, 0, 0), "no requests since the last table, 0 objects, 0 of 256 MiB"),
    ] {
        report.cache = Some(cache);
        let text = render(&report, None, false);
        assert_eq!(text.lines().last(), Some(&*format!("cache: {expected}")), "{text}");
    }
    assert!(render(&report, Some(30), false).lines().all(|line| line.chars().count() <= 30));
}

#[test]
fn hits_are_counted_from_the_last_table() {
    let mut cache = CacheLine { hits: 5, misses: 3, ..CacheLine::default() };
    assert_eq!((cache.count_from((4, 1)), cache.hits, cache.misses), ((5, 3), 1, 2));
}

#[test]
fn codings_are_told_by_what_they_saved_since_the_last_table() {
    let coding = |coding, decoded, answers, kib: u64, after| CodingLine {
        coding,
        decoded,
        answers,
        before: kib << 10,
        after,
        took: Duration::from_millis(answers),
    };
    let earlier = vec![coding("zstd", false, 20, 1024, 100), coding("gzip", false, 3, 3, 1)];
    let mut report = table(vec![row("a", State::Healthy)]);
    report.codings = vec![
        coding("zstd", false, 140, 5 * 1024, (1 << 20) + 100),
        coding("gzip", false, 3, 3, 1),
        coding("gzip", true, 1, 1024, 4 << 20),
    ];
    let all = report.codings.clone();
    assert_eq!(CodingLine::count_from(&mut report.codings, &earlier), all);
    let text = render(&report, None, false);
    let last: Vec<_> = text.lines().rev().take(2).collect();
    assert_eq!(last[1], "compressed since the last table: zstd 120 answers, 4 to 1 MiB (25 %) in 120ms", "{text}");
    assert_eq!(last[0], "decoded since the last table: gzip 1 answer, 1 to 4 MiB (400 %) in 1.0ms", "{text}");
    assert!(render(&report, Some(30), false).lines().all(|line| line.chars().count() <= 30));
}

#[test]
fn limits_and_those_who_wait_are_shown_where_there_are_any() {
    let mut report =
        table(vec![Row { in_flight: 7, most: Some(8), ..row("a", State::Healthy) }, row("b", State::Healthy)]);
    report.tables[0].waiting = Some(3);
    let text = render(&report, None, false);
    assert!(text.starts_with("app: 2 backends, 2 HEALTHY, 3 waiting\n"), "{text}");
    assert!(text.contains(" 7/8 ") && text.lines().last().unwrap().contains("  0  "), "{text}");
    report.tables[0].waiting = Some(0);
    assert!(!render(&report, None, false).contains("waiting"));
}

#[test]
fn what_is_left_of_quotas_is_a_column_only_where_there_are_any() {
    let plain = render(&table(vec![row("a", State::Healthy)]), None, false);
    assert!(!plain.contains("QUOTA"), "{plain}");
    let quota = config::Quota { most: 240, window: Duration::from_secs(60) };
    let limited = Row { left: Some((180, quota)), ..row("a", State::Healthy) };
    let text = render(&table(vec![limited, row("b", State::Healthy)]), None, false);
    let lines: Vec<_> = text.lines().collect();
    let headed = lines[1].contains("  IN-FLIGHT    QUOTA LEFT  REQ/S");
    assert!(headed && lines[2].contains("  0  180 of 240/m  ") && lines[3].contains("  0             -  "), "{text}");
}

#[test]
fn a_state_that_ends_shows_what_is_left_of_it() {
    let timed = |name, state, seconds| Row { state_left: Some(Duration::from_secs_f64(seconds)), ..row(name, state) };
    let report = table(vec![
        timed("a", State::Throttled, 11.2),
        timed("b", State::Ejected, 0.0),
        timed("c", State::Ejected, 240.5),
        Row { on_trial: true, ..row("d", State::Ejected) },
        row("e", State::Draining),
    ]);
    let text = render(&report, None, false);
    let states: Vec<_> = text.lines().skip(2).map(|line| line.get(9..22).unwrap().trim_end()).collect();
    assert_eq!(states, ["THROTTLED 12s", "EJECTED 1s", "EJECTED 5m", "EJECTED trial", "DRAINING"]);
    assert!(text.starts_with("app: 5 backends, 1 DRAINING, 1 THROTTLED, 3 EJECTED\n"), "{text}");
}

#[test]
fn a_wide_table_tells_everything() {
    let expected = "\
app: 3 backends, 1 HEALTHY, 1 PENDING, 1 UNREACHABLE
BACKEND         STATE          WEIGHT  IN-FLIGHT  REQ/S  ERRORS    P50   P99  FAILS  HEALTHY  LAST ERROR
127.0.0.1:8001  HEALTHY             3         12    140       0  1.2ms  35ms      0      now  -
127.0.0.1:8002  UNREACHABLE         1          0    0.0      17      -     -      5   1m ago  connection refused (3s ago)
spare           PENDING      1 tier 1          0      -       0      -     -      0    never  -
";
    assert_eq!(render(&three(), None, false), expected);
}

#[test]
fn a_narrow_table_puts_the_last_error_below() {
    let expected = "\
app: 3 backends, 1 HEALTHY, 1 PENDING, 1 UNREACHABLE
BACKEND         STATE          WEIGHT  IN-FLIGHT  REQ/S  ERRORS    P50   P99
127.0.0.1:8001  HEALTHY             3         12    140       0  1.2ms  35ms
127.0.0.1:8002  UNREACHABLE         1          0    0.0      17      -     -
    last error: connection refused (3s ago)
spare           PENDING      1 tier 1          0      -       0      -     -
";
    assert_eq!(render(&three(), Some(80), false), expected);
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let mut report = three();
    report.tables[0].rows[1].last_error = Some(("x".repeat(300), Duration::from_secs(3)));
    report.refused = Totals::from([("header_timeout", u64::MAX), ("max_connections_per_address", u64::MAX)]);
    for width in 27..200 {
        let text = render(&report, Some(width), false);
        assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
    }
    render(&report, Some(0), false);
}

#[test]
fn a_long_list_is_cut_with_a_count_and_shows_trouble_first() {
    let mut rows: Vec<_> = (0..500).map(|n| row(&format!("b{n}"), State::Healthy)).collect();
    rows[400].state = State::Unreachable;
    rows[450].state = State::Pending;
    let text = render(&table(rows), None, false);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 23);
    assert!(lines[2].starts_with("b400 ") && lines[3].starts_with("b450 ") && lines[4].starts_with("b0 "));
    assert_eq!(lines[22], "... and 480 more, 480 HEALTHY");
}

#[test]
fn there_is_no_control_code_without_colour_whatever_a_backend_says() {
    let mut report = three();
    report.tables[0].rows[1].last_error = Some(("\x1b[2Jgone\u{202e}\r\n".into(), Duration::ZERO));
    for width in [None, Some(80)] {
        let text = render(&report, width, false);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}'));
        assert!(text.contains(r"\u{1b}[2Jgone\u{202e}\r\n"));
    }
}

#[test]
fn colour_changes_nothing_but_the_state() {
    let colored = render(&three(), Some(80), true);
    assert!(colored.contains("\x1b[31mUNREACHABLE\x1b[0m"));
    let plain =
        ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"].iter().fold(colored, |text, code| text.replace(code, ""));
    assert_eq!(plain, render(&three(), Some(80), false));
}

#[test]
fn what_was_refused_stands_below_the_tables_once() {
    let before = Totals::from([("bad_host", 2), ("header_timeout", 1)]);
    let now = Totals::from([("bad_host", 2), ("header_timeout", 4), ("max_connections", 1)]);
    let report = Report { refused: since(&before, &now), ..Report::default() };
    let line = "refused since the last table: header_timeout 3, max_connections 1\n";
    assert_eq!(render(&report, None, false), line);
    assert_eq!(render(&report, Some(20), false), "refused since the ..\n");
    assert!(since(&now, &now).is_empty());
}

#[test]
fn a_rate_is_the_difference_of_two_samples() {
    let start = Instant::now();
    let mut rates = Rates::default();
    let mut rate_at = |requests, ms| {
        let mut tables = table(vec![Row { requests, ..row("b", State::Healthy) }]).tables;
        rates.fill(&mut tables, start + Duration::from_millis(ms));
        tables[0].rows[0].rate
    };
    assert_eq!(rate_at(100, 0), None);
    assert_eq!(rate_at(500, 100), None, "too short to tell");
    assert_eq!(rate_at(300, 2000), Some(100.0));
    assert_eq!(rate_at(306, 2500), Some(82.4), "a young sample is passed over for the one before");
    assert_eq!(rate_at(0, 4000), Some(0.0), "a total that started again");
}

/// Runs the loop on paused time; gives the moments of the printed tables, in milliseconds.
async fn printed(every: Option<Duration>, script: impl AsyncFn(&watch::Sender<u64>)) -> Vec<u64> {
    let start = Instant::now();
    let prints = Mutex::new(Vec::new());
    let (sender, changes) = watch::channel(0);
    let print = |_: &Report| prints.lock().unwrap().push(start.elapsed().as_millis() as u64);
    let act = async {
        script(&sender).await;
        drop(sender);
    };
    tokio::join!(watch_reports(every, three, changes, print), act);
    prints.into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_start_and_many_changes_at_once_print_one_table() {
    let times = printed(None, async |sender| {
        for _ in 0..100 {
            sleep(Duration::from_millis(1)).await;
            sender.send_modify(|count| *count += 1);
        }
        sleep(Duration::from_secs(60)).await;
    });
    assert_eq!(times.await, [200]);
}

#[tokio::test(start_paused = true)]
async fn a_later_change_prints_another_table() {
    let times = printed(None, async |sender| {
        sleep(Duration::from_secs(60)).await;
        sender.send_modify(|count| *count += 1);
        sleep(Duration::from_secs(60)).await;
    });
    assert_eq!(times.await, [200, 60_200]);
}

#[tokio::test(start_paused = true)]
async fn an_interval_prints_without_a_change() {
    let times = printed(Some(Duration::from_secs(2)), async |_| sleep(Duration::from_millis(6500)).await);
    assert_eq!(times.await, [200, 2200, 4200, 6200]);
}

#[tokio::test(start_paused = true)]
async fn a_dashboard_that_is_off_asks_for_no_report() {
    let asked = AtomicU64::new(0);
    let (_sender, changes) = watch::channel(0);
    let report = || {
        asked.fetch_add(1, Relaxed);
        Report::default()
    };
    run(config::Dashboard::None, report, changes).await;
    assert_eq!(asked.load(Relaxed), 0);
}
