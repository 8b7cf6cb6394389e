//! The dashboard in the log of the real program: when it is printed, and what stands in it.

use crate::support;

use std::time::Instant;

use support::backend::response;
use support::{Act, Backend, Client, Portcullis, Script, wait_for};

const CHECK: &str = "health_check: { interval: 50ms, fast_interval: 20ms, timeout: 500ms, fall: 2, rise: 2 }";

fn program(backends: &[&Backend], dashboard: &str) -> Portcullis {
    let urls = backends.iter().map(|backend| backend.url()).collect::<Vec<_>>();
    Portcullis::run(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams:\n  app:\n    backends: {urls:?}\n    {CHECK}\n\
         routes:\n  - upstream: app\nadmin: {{ address: none }}\nlog: {{ access: none, dashboard: {dashboard} }}\n"
    ))
}

/// The columns of this backend's last row, as soon as they show this state.
async fn row(program: &Portcullis, backend: &Backend, state: &str) -> Vec<String> {
    let name = format!("{} ", backend.address());
    let columns = |row: &String| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let last = || program.lines().iter().rev().find(|line| line.trim_start().starts_with(&name)).map(columns);
    wait_for(&format!("{name}should be {state}"), || last().filter(|columns| columns[1] == state)).await
}

#[tokio::test]
async fn the_table_shows_a_backend_that_dies_and_comes_back() {
    let backends = [Backend::named("a"), Backend::answering(200, "b")];
    let program = program(&[&backends[0], &backends[1]], "on_change");
    program.line_with("app: 2 backends, 2 HEALTHY").await;
    let columns = row(&program, &backends[1], "HEALTHY").await;
    assert_eq!((columns[2].as_str(), columns[3].as_str()), ("1", "0"), "{columns:?}");

    backends[1].stop().await;
    program.line_with("app: 2 backends, 1 HEALTHY, 1 UNREACHABLE").await;
    program.line_with(&format!("upstream app: backend {} is UNREACHABLE", backends[1].address())).await;
    let columns = row(&program, &backends[1], "UNREACHABLE").await.join(" ");
    assert!(columns.contains("refused ("), "{columns}");

    backends[1].restart().await;
    program.lines_with("app: 2 backends, 2 HEALTHY", 2).await;
    program.line_with(&format!("upstream app: backend {} is HEALTHY: probes pass", backends[1].address())).await;
}

#[tokio::test]
async fn a_pipe_gets_every_column_and_no_control_codes() {
    let backends = [Backend::named("a"), Backend::refusing()];
    let program = program(&[&backends[0], &backends[1]], "on_change");
    let heading = program.line_with("BACKEND").await;
    program.line_with("app: 2 backends, 1 HEALTHY, 1 UNREACHABLE").await;

    let columns =
        "BACKEND STATE WEIGHT IN-FLIGHT REQ/S ERRORS P50 P99 FAILS HEALTHY LAST ERROR".split(' ').collect::<Vec<_>>();
    assert_eq!(heading.split_whitespace().collect::<Vec<_>>(), columns);
    for line in program.lines() {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[tokio::test]
async fn no_table_is_printed_when_none_is_wanted() {
    let backends = [Backend::named("a"), Backend::answering(200, "b")];
    let program = program(&[&backends[0], &backends[1]], "none");
    program.lines_with("is HEALTHY", 2).await;
    backends[1].stop().await;
    program.line_with("is UNREACHABLE").await;
    backends[1].restart().await;
    program.lines_with("is HEALTHY", 3).await;

    assert!(!program.lines().iter().any(|line| line.contains("BACKEND")), "{:#?}", program.lines());
}

#[tokio::test]
async fn an_interval_prints_the_table_again_and_again() {
    let backend = Backend::named("a");
    let program = program(&[&backend], "1s");

    program.lines_with("app: 1 backend, 1 HEALTHY", 1).await;
    let first = Instant::now();
    program.lines_with("app: 1 backend, 1 HEALTHY", 4).await;

    assert!((2..5).contains(&first.elapsed().as_secs()), "{:?} for three intervals", first.elapsed());
}

#[tokio::test]
async fn a_cache_has_a_line_in_each_table_and_makes_none() {
    let fields = [("Cache-Control", "max-age=600")];
    let backend = Backend::scripted(Script::each([vec![Act::Write(response(200, &fields, "x"))]]));
    let other = Backend::named("other");
    let program = Portcullis::run(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams:\n  app: {{ backends: [{:?}], health_check: none }}\n  \
         other: {{ backends: [{:?}], {CHECK} }}\nroutes: [{{ upstream: app, cache: {{}} }}]\n\
         admin: {{ address: none }}\nlog: {{ access: none, dashboard: on_change }}\n",
        backend.url(),
        other.url()
    ));
    let address = program.line_with("listening on").await.rsplit(' ').next().unwrap().parse().unwrap();
    program.line_with("other: 1 backend, 1 HEALTHY").await;
    let before = program.lines_with("cache: no requests since the last table, 0 objects, 0 of 256 MiB", 1).await.len();
    let mut client = Client::tcp(address).await;
    for _ in 0..4 {
        assert_eq!(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
    }
    other.stop().await;
    let told = program.line_with("cache: 75 % hits of 4 requests since the last table, 1 object, 0.1 of 256 MiB").await;
    let lines = program.lines().into_iter().take_while(|line| *line != told);
    assert_eq!(lines.filter(|line| line.trim_start().starts_with("cache: ")).count(), before);
}

#[tokio::test]
async fn what_was_made_smaller_is_told_below_the_table_once() {
    let fields = [("Content-Type", "text/plain")];
    let backend = Backend::writing(response(200, &fields, &"so it goes ".repeat(100_000)));
    let program = Portcullis::run(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams:\n  app: {{ backends: [{:?}], health_check: none }}\n\
         routes: [{{ upstream: app, compress: {{}} }}]\nadmin: {{ address: none }}\nlog: {{ access: none, dashboard: 1s }}\n",
        backend.url(),
    ));
    let address = program.line_with("listening on").await.rsplit(' ').next().unwrap().parse().unwrap();
    let mut client = Client::tcp(address).await;
    for coding in ["gzip", "gzip", "zstd", "identity"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\n\r\n");
        assert_eq!(client.exchange(request).await.status, 200);
    }
    program.line_with("zstd 1 answer, 1.1 to").await;
    let tables = program.lines_with("app: 1 backend", 1).await.len();
    program.lines_with("app: 1 backend", tables + 2).await;
    let told = program.lines_with("compressed since the last table: ", 1).await.join(" ");
    // A table may come between them.
    let gzip =
        told.matches("gzip 2 answers, 2.1 to").count() == 1 || told.matches("gzip 1 answer, 1.1 to").count() == 2;
    assert!(gzip && told.matches("zstd").count() == 1 && !told.contains("identity"), "{told}");
}

#[tokio::test]
async fn what_was_refused_before_it_was_a_request_is_counted_below_the_table() {
    let backend = Backend::named("a");
    let program = Portcullis::run(&format!(
        "listeners: [{{ address: 127.0.0.1:0, max_connections_per_address: 1, timeouts: {{ header: 300ms }} }}]\n\
         upstreams: {{ app: {{ backends: [{:?}], health_check: none }} }}\nroutes: [{{ upstream: app }}]\n\
         admin: {{ address: none }}\nlog: {{ access: none, dashboard: 1s }}\n",
        backend.url()
    ));
    let address = program.line_with("listening on").await.rsplit(' ').next().unwrap().parse().unwrap();
    let mut late = Client::tcp(address).await;
    // Its place is taken once it is served.
    assert_eq!(late.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 200);
    late.send("GET / HTTP/1.1\r\n").await;
    Client::tcp(address).await.expect_closed().await;
    assert_eq!(late.read_response().await.status, 408);

    for what in ["header_timeout 1", "max_connections_per_address 1"] {
        program.line_with(what).await;
    }
    let tables = program.lines_with("app: 1 backend", 1).await.len();
    program.lines_with("app: 1 backend", tables + 2).await;
    let told = program.lines_with("refused since the last table: ", 1).await.join(" ");
    assert_eq!(told.matches("header_timeout").count(), 1, "what was told is not told again: {told}");
    assert_eq!(told.matches("max_connections_per_address").count(), 1, "{told}");
}

#[tokio::test]
async fn a_quiet_log_has_its_tables_all_the_same() {
    for level in ["warn", "none"] {
        let backend = Backend::named("a");
        let program = Portcullis::run(&format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ app: {{ backends: [{:?}], {CHECK} }} }}\n\
             routes: [{{ upstream: app }}]\nadmin: {{ address: none }}\n\
             log: {{ level: {level}, access: none, dashboard: on_change }}\n",
            backend.url()
        ));
        program.line_with("app: 1 backend, 1 HEALTHY").await;
        assert!(!program.lines().iter().any(|line| line.contains("is HEALTHY")), "{:#?}", program.lines());
    }
}

#[tokio::test]
async fn a_panic_is_told_when_it_begins_and_when_it_ends() {
    let backends = [Backend::named("a"), Backend::named("b"), Backend::named("c")];
    let program = program(&[&backends[0], &backends[1], &backends[2]], "none");
    program.lines_with("is HEALTHY", 3).await;

    backends[0].stop().await;
    backends[1].stop().await;
    let line = program.line_with("panic").await;
    assert!(line.contains("WARN ] upstream app: panic: less than 50% of its backends are alive"), "{line}");
    backends[0].restart().await;
    program.line_with("INFO ] upstream app: the panic is over").await;

    assert_eq!(program.lines_with("panic", 2).await.len(), 2);
}

#[tokio::test]
async fn a_terminal_gets_colours_and_no_line_that_is_wider() {
    let backends = [Backend::named("a"), Backend::refusing()];
    let urls = backends.iter().map(Backend::url).collect::<Vec<_>>();
    let program = Portcullis::at_terminal(
        &format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ app: {{ backends: {urls:?}, {CHECK} }} }}\n\
             routes: [{{ upstream: app }}]\nadmin: {{ address: none }}\n\
             log: {{ level: none, access: none, dashboard: on_change }}\n"
        ),
        60,
    );
    program.line_with("app: 2 backends, 1 HEALTHY, 1 UNREACHABLE").await;
    program.line_with("last error: ").await;

    let plain = |line: &String| line.replace("\x1b[31m", "").replace("\x1b[32m", "").replace("\x1b[0m", "");
    let lines = program.lines();
    assert!(lines.iter().any(|line| line.contains("\x1b[31mUNREACHABLE\x1b[0m")), "{lines:#?}");
    let wide = lines.iter().map(plain).filter(|line| line.contains("127.0.0.1:") || line.contains("BACKEND"));
    let wide = wide.map(|line| line.trim_end().chars().count()).collect::<Vec<_>>();
    assert!(wide.len() >= 3 && wide.iter().all(|&width| width <= 60), "{lines:#?}");
}

#[tokio::test]
async fn the_operator_sees_who_is_left_alone_and_hears_of_a_lie_once() {
    let answer = |status, field| Backend::writing(support::backend::response(status, &[field], ""));
    let liar = answer(429, ("Retry-After", "-5 soon"));
    let (busy, sick) = (answer(429, ("Retry-After", "90")), Backend::answering(500, "sick"));
    let program = program(&[&liar, &busy, &sick], "on_change");
    let address = program.line_with("listening on").await.rsplit(' ').next().unwrap().parse().unwrap();
    program.line_with("app: 3 backends, 3 HEALTHY").await;
    for _ in 0..20 {
        Client::tcp(address).await.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    }

    assert!(row(&program, &busy, "THROTTLED").await[2].ends_with('s'));
    assert!(row(&program, &sick, "EJECTED").await[2].ends_with('s'));
    program.line_with(&format!("backend {} is THROTTLED for 90.0s: Retry-After", busy.address())).await;
    program.line_with(&format!("backend {} is EJECTED for 30.0s: requests fail in a row", sick.address())).await;
    let lies = program.lines_with("it is not understood", 1).await;
    assert!(lies.len() == 1 && lies[0].contains("sent Retry-After \"-5 soon\""), "{lies:?}");
}
