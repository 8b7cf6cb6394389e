//! Tests of the access log.

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

/// A sink that can be looked into, and that stands still while its lock is held.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

fn logs(access: config::AccessLog, form: LogForm) -> config::Log {
    let dashboard = config::Dashboard::None;
    config::Log { level: log::LevelFilter::Off, access, form, rotate: None, usage: None, loki: None, dashboard }
}

fn entry(path: &str) -> Entry {
    Entry { path: Entry::path_of(path), ..Entry::default() }
}

#[test]
fn a_line_has_the_documented_fields_in_the_documented_order() {
    let full = Entry {
        trace_id: None,
        time: std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_120),
        id: "7f".into(),
        client: Some("192.0.2.7".parse().unwrap()),
        identity: Some("ann".into()),
        dry_run: Some(vec!["5/m by route".into()]),
        method: "GET".into(),
        host: "example.com".into(),
        path: "/a".into(),
        route: Some("api".into()),
        upstream: Some("app".into()),
        backend: Some("b:2".into()),
        attempts: vec![
            Attempt {
                backend: "b:1".into(),
                outcome: "connect_refused".into(),
                took: Duration::from_micros(250),
                no_retry: None,
            },
            Attempt {
                backend: "b:2".into(),
                outcome: "ok".into(),
                took: Duration::from_millis(3),
                no_retry: Some("not_idempotent"),
            },
        ],
        status: Some(200),
        bytes_in: 1,
        bytes_out: 2,
        total: Duration::from_nanos(4_000_999),
        first_byte: Some(Duration::from_micros(3_500)),
        connect: None,
        protocol: "HTTP/2",
        tls: Some("TLSv1.3"),
        cache: Some("miss:no_store".into()),
        encoding: Some(Recoded::new("zstd", false, (3000, 1000), Duration::from_micros(250))),
        reason: "ok",
        ..Entry::default()
    };
    let expected = concat!(
        r#"{"time":"2023-11-14T22:13:20.120Z","id":"7f","trace_id":null,"client":"192.0.2.7","identity":"ann","dry_run":["5/m by route"],"method":"GET","host":"example.com","#,
        r#""path":"/a","route":"api","upstream":"app","backend":"b:2","#,
        r#""attempts":[{"backend":"b:1","outcome":"connect_refused","ms":0.25},{"backend":"b:2","outcome":"ok","ms":3.0,"no_retry":"not_idempotent"}],"#,
        r#""status":200,"bytes_in":1,"bytes_out":2,"total_ms":4.0,"first_byte_ms":3.5,"connect_ms":null,"#,
        r#""protocol":"HTTP/2","tls":"TLSv1.3","cache":"miss:no_store","#,
        r#""encoding":{"coding":"zstd","before":3000,"after":1000,"ratio":0.333,"ms":0.25},"reason":"ok"}"#,
    );
    assert_eq!(full.to_string(), expected);
}

#[test]
fn an_answer_that_was_decoded_tells_what_it_came_in() {
    let decoded = Recoded::new("gzip", true, (0, 0), Duration::ZERO);
    let expected = r#""encoding":{"coding":"identity","decoded":"gzip","before":0,"after":0,"ratio":null,"ms":0.0}"#;
    let line = Entry { encoding: Some(decoded), ..Entry::default() }.to_string();
    assert!(line.contains(expected), "{line}");
}

#[test]
fn a_query_is_never_logged() {
    assert_eq!(Entry::path_of("/login?password=x#y"), "/login");
}

#[test]
fn lines_arrive_in_order_and_complete() {
    let sink = Sink::default();
    let log = AccessLog::to(sink.clone(), 2000).unwrap();
    (0..1000).for_each(|n| log.record(entry(&format!("/{n}"))));
    assert!(log.flush());
    let lines = sink.lines();
    assert_eq!((lines.len(), log.losses().access), (1000, 0));
    assert!(lines.iter().enumerate().all(|(n, line)| line.contains(&format!("\"path\":\"/{n}\""))));
}

#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let sink = Sink::default();
    let log = AccessLog::to(sink.clone(), 4).unwrap();
    let stuck = sink.0.lock().unwrap();
    // More than the buffer holds, so that the writer is stuck in the sink; this ends only if nobody waits for it.
    (0..1000).for_each(|_| log.record(entry(&"x".repeat(2000))));
    let dropped = log.losses().access;
    assert!(dropped > 0);
    assert!(!log.flush(), "a stuck sink must not hold up the end for longer than a second");
    drop(stuck);
    assert!(log.flush());
    assert_eq!(sink.lines().len() as u64 + dropped, 1000);
}

#[test]
fn what_waits_is_bounded_in_bytes_too() {
    let sink = Sink::default();
    let log = AccessLog::to(sink.clone(), 8192).unwrap();
    let stuck = sink.0.lock().unwrap();
    // 64 KiB each, as much as a head may be.
    let long = || Entry { host: "x".repeat(64 << 10), ..Entry::default() };
    (0..1000).for_each(|_| log.record(long()));
    let dropped = log.losses().access;
    let kept = 1000 - dropped;
    assert!((200..=300).contains(&kept), "{kept} of 64 KiB are 16 MiB, and some more are written already");
    drop(stuck);
    assert!(log.flush());
    log.record(long());
    assert!(log.flush());
    assert_eq!((sink.lines().len() as u64, log.losses().access), (kept + 1, dropped), "there is room again");
}

#[test]
fn a_change_that_meets_a_stuck_writer_is_made_once_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("two.log");
    let sink = Sink::default();
    let log = AccessLog::to(sink.clone(), 4).unwrap();
    let stuck = sink.0.lock().unwrap();
    (0..200).for_each(|_| log.record(entry(&"x".repeat(2000))));
    let old = logs(config::AccessLog::Stdout, LogForm::Json);
    let new = logs(config::AccessLog::File(path.clone()), LogForm::Combined);
    log.change(AccessLog::prepare(&old, &new).unwrap());
    drop(stuck);
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let text = || std::fs::read_to_string(&path).unwrap();
    while text().is_empty() && std::time::Instant::now() < until {
        log.record(Entry { method: "GET".into(), ..entry("/after") });
        log.flush();
    }
    drop(log);
    assert!(text().lines().all(|line| line.contains("\"GET /after HTTP/1.1\"")), "what waited went where it was to go");
    assert!(!text().is_empty());
}

#[test]
fn the_last_clone_waits_for_the_last_line() {
    let sink = Sink::default();
    let log = AccessLog::to(sink.clone(), 10).unwrap();
    let clone = log.clone();
    drop(log);
    clone.record(entry("/last"));
    drop(clone);
    assert_eq!(sink.lines().len(), 1);
}

#[test]
fn a_file_is_appended_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    std::fs::write(&path, "before\n").unwrap();
    let log = AccessLog::open(&logs(config::AccessLog::File(path.clone()), LogForm::Json)).unwrap();
    log.record(entry("/after"));
    drop(log);
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.starts_with("before\n{") && text.ends_with("}\n"));
}

#[test]
fn a_change_of_place_and_form_holds_for_what_comes_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = ["one.log", "two.log"].map(|name| dir.path().join(name));
    let old = logs(config::AccessLog::File(one.clone()), LogForm::Json);
    let new = logs(config::AccessLog::File(two.clone()), LogForm::Combined);
    let log = AccessLog::open(&old).unwrap();
    log.record(entry("/1"));
    log.change(AccessLog::prepare(&old, &new).unwrap());
    assert!(log.quotes_the_head());
    log.record(Entry { method: "GET".into(), ..entry("/2") });
    let off = logs(config::AccessLog::None, LogForm::Json);
    log.change(AccessLog::prepare(&new, &off).unwrap());
    assert!(!log.is_on() && !log.quotes_the_head());
    drop(log);
    let [one, two] = [one, two].map(|path| std::fs::read_to_string(path).unwrap());
    assert!(one.contains(r#""path":"/1""#) && one.lines().count() == 1, "{one}");
    assert!(two.contains(r#""GET /2 HTTP/1.1""#) && two.lines().count() == 1, "{two}");
}

#[test]
fn a_log_that_is_off_takes_everything_and_keeps_nothing() {
    let log = AccessLog::open(&logs(config::AccessLog::None, LogForm::Json)).unwrap();
    log.record(entry("/"));
    assert!(!log.is_on() && log.flush() && log.losses().access == 0);
}

proptest! {
    #[test]
    fn whatever_a_client_sends_a_line_is_one_line_of_json(
        method in any::<String>(), host in any::<String>(), path in ".{0,3000}", id in any::<Vec<u8>>(),
    ) {
        let id = String::from_utf8_lossy(&id).into_owned();
        let line = Entry { id, method: method.clone(), host, path, ..Entry::default() }.to_string();
        prop_assert!(!line.contains(['\n', '\r']) && line.len() < 60_000);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(value["method"].as_str(), Some(cut_like_the_log(&method)));
        prop_assert!(value["path"].as_str().unwrap().len() <= 2048);
    }
}

fn cut_like_the_log(text: &str) -> &str {
    assert!(text.len() <= 2048, "proptest's strings are short");
    text
}
