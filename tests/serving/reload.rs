//! Another configuration while we run: what is swapped, what survives, and what a bad one changes (nothing).

use crate::support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::backend::State;
use support::front_door::Builder;
use support::tls::{Certificate, Offer};
use support::{Backend, Client, Lb, Portcullis, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// One upstream with these backends, each with more keys of its own, and a route to it.
fn app(backends: &[(&Backend, &str)]) -> Builder {
    let line = |(backend, more): &(&Backend, &str)| format!("      - {{ url: \"{}\"{more} }}\n", backend.url());
    let list = backends.iter().map(line).collect::<String>();
    Lb::yaml(format!(
        "upstreams:\n  app:\n    health_check: none\n    backends:\n{list}routes: [{{ upstream: app }}]\n"
    ))
}

fn saying(body: &str) -> Builder {
    Lb::yaml(format!("routes: [{{ respond: {{ status: 200, body: \"{body}\" }} }}]\n"))
}

#[tokio::test]
async fn routes_and_upstreams_are_swapped_under_an_open_connection() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let lb = app(&[(&a, "")]).start().await;
    let mut client = lb.raw().await;
    assert_eq!(client.exchange(GET).await.body, "a");

    assert_eq!(lb.reload(app(&[(&b, "")])).await.unwrap().needs_restart, [""; 0]);
    assert_eq!(client.exchange(GET).await.body, "b");

    lb.reload(saying("nobody")).await.unwrap();
    assert_eq!(client.exchange(GET).await.body, "nobody");
    assert!(lb.front().upstream("app").is_none());
}

#[tokio::test]
async fn a_backend_that_stays_keeps_its_counters_and_its_requests_in_flight() {
    let (held, other) = (Backend::held("late"), Backend::named("other"));
    let lb = app(&[(&held, "")]).start().await;
    let mut client = lb.raw().await;
    client.send(GET).await;
    held.until_requests(1).await;
    let before = lb.upstream("app").members()[0].backend.clone();

    lb.reload(app(&[(&other, ", weight: 0"), (&held, ", weight: 7")])).await.unwrap();

    let upstream = lb.upstream("app");
    let member = &upstream.members()[1];
    assert!(Arc::ptr_eq(&member.backend, &before), "the same backend, whatever its place and weight");
    assert_eq!((member.weight, upstream.in_flight(&member.backend)), (7, 1));
    held.release();
    assert_eq!(client.read_response().await.body, "late");
    lb.until_idle().await;
    assert_eq!((upstream.in_flight(&member.backend), member.backend.reading().requests), (0, 1));
}

#[tokio::test]
async fn a_backend_that_stays_keeps_its_state() {
    let (well, ill) = (Backend::named("well"), Backend::refusing());
    let checked = |weight: u32| {
        let yaml = format!(
            "upstreams:\n  app:\n    health_check: {{ interval: 1h, fast_interval: 20ms }}\n    backends:\n      \
             - {{ url: \"{}\", weight: {weight} }}\n      - {{ url: \"{}\" }}\nroutes: [{{ upstream: app }}]\n",
            well.url(),
            ill.url()
        );
        Lb::yaml(yaml)
    };
    let states = |lb: &Lb| lb.upstream("app").members().iter().map(|it| it.backend.state()).collect::<Vec<_>>();
    let lb = checked(1).start().await;
    lb.wait_until("both should be probed", |lb| states(lb) == [State::Healthy, State::Unreachable]).await;

    lb.reload(checked(2)).await.unwrap();

    assert_eq!(states(&lb), [State::Healthy, State::Unreachable]);
    assert_eq!(
        Client::tcp(lb.admin_address()).await.exchange("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await.status,
        200
    );
}

#[tokio::test]
async fn a_request_in_flight_keeps_its_backend_and_its_snapshot() {
    let (held, new) = (Backend::held("late"), Backend::named("new"));
    let edited = |builder: Builder, value: &str| {
        let headers = format!("headers: {{ response: {{ set: {{ x-snapshot: {value} }} }} }}");
        let text = builder.text().replace("{ upstream: app }", &format!("{{ upstream: app, {headers} }}"));
        Lb::yaml(text)
    };
    let lb = edited(app(&[(&held, "")]), "old").start().await;
    let mut waiting = lb.raw().await;
    waiting.send(GET).await;
    held.until_requests(1).await;

    lb.reload(edited(app(&[(&new, "")]), "new")).await.unwrap();

    let fresh = lb.raw().await.exchange(GET).await;
    assert_eq!((fresh.text().as_str(), fresh.field("x-snapshot")), ("new", Some("new")));
    held.release();
    let late = waiting.read_response().await;
    assert_eq!((late.text().as_str(), late.field("x-snapshot")), ("late", Some("old")));
    assert_eq!(waiting.exchange(GET).await.field("x-snapshot"), Some("new"), "its next request sees the new one");
}

#[tokio::test]
async fn a_new_backend_never_starts_with_the_requests_of_one_that_is_gone() {
    let (stays, goes, comes) = (Backend::named("stays"), Backend::held("goes"), Backend::named("comes"));
    let lb = app(&[(&stays, ", weight: 0"), (&goes, "")]).start().await;
    let mut client = lb.raw().await;
    client.send(GET).await;
    goes.until_requests(1).await;

    lb.reload(app(&[(&stays, "")])).await.unwrap();
    lb.reload(app(&[(&stays, ""), (&comes, "")])).await.unwrap();

    let upstream = lb.upstream("app");
    let counts = || upstream.members().iter().map(|it| upstream.in_flight(&it.backend)).collect::<Vec<_>>();
    assert_eq!(counts(), [0, 0]);
    goes.release();
    assert_eq!(client.read_response().await.body, "goes");
    lb.until_idle().await;
    assert_eq!(counts(), [0, 0]);
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let lb = app(&[(&a, "")]).start().await;
    let before = lb.upstream("app");
    let with_ca = format!(
        "upstreams:\n  app:\n    health_check: none\n    backends: [\"{}\"]\n  late:\n    health_check: none\n    \
         backends: [\"https://127.0.0.1:1\"]\n    tls: {{ ca: ca.pem, server_name: a.b }}\nroutes: [{{ upstream: app }}]\n",
        b.url()
    );
    // What the check found good may be bad a moment later: here from the start, because the test parses by itself.
    std::fs::write(lb.folder().join("ca.pem"), &Certificate::for_names(&["a.b"]).cert_pem).unwrap();
    let good = lb.config_of(&Lb::yaml(with_ca));
    std::fs::write(lb.folder().join("ca.pem"), "not a certificate").unwrap();

    let error = lb.front().reload(good).await.unwrap_err().to_string();

    assert!(error.starts_with("upstreams.late.tls: "), "{error}");
    assert!(Arc::ptr_eq(&lb.upstream("app"), &before));
    assert_eq!(lb.get("/").await.body, "a");
    assert_eq!(b.connections(), 0);
}

/// The listeners of the harness, as it writes them.
const TWO_LISTENERS: &str = "listeners:\n  - { name: plain, address: 127.0.0.1:0 }\n  - { name: secure, address: \
                             127.0.0.1:0, tls: { self_signed: [localhost] } }";

#[tokio::test]
async fn what_needs_a_restart_is_named_and_stays_as_it_was() {
    let lb = saying("before").start().await;
    let listeners = TWO_LISTENERS;
    for (section, key) in [
        ("server: { threads: 7 }", "server.threads"),
        ("server: { max_connections: 77 }", "server.max_connections"),
        ("server: { reload: { debounce: 7s } }", "server.reload"),
        ("admin: { address: none }", "admin.address"),
        ("cache: { eviction: s3_fifo }", "cache.eviction"),
        ("log: { access: access.log, dashboard: none, usage: { file: usage.log } }", "log.usage"),
        ("log: { access: access.log, dashboard: 7s }", "log.dashboard"),
        (
            &listeners.replace("name: plain,", "name: plain, max_connections_per_address: 7,"),
            "listeners[0].max_connections_per_address",
        ),
        (&listeners.replace("name: plain,", "name: plain, limits: { headers: 7 },"), "listeners[0].limits"),
        (&listeners.replace("name: plain,", "name: plain, timeouts: { idle: 7s },"), "listeners[0].timeouts"),
        (&listeners.replace("name: secure,", "name: secure, http2: false,"), "listeners[1].http2"),
    ] {
        let done = lb.reload(saying("after").yaml_section(section)).await.unwrap();
        assert_eq!(done.needs_restart, [key], "{section}");
        assert_eq!(lb.get("/").await.body, "after", "the rest is taken over");
        assert_eq!(lb.reload(saying("before")).await.unwrap().needs_restart, [""; 0], "nothing of it was kept");
    }
    for section in [
        "server: { grace_period: 7s, drain_delay: 1ms, trusted_proxies: [10.0.0.0/8] }".to_owned(),
        "log: { access: access.log, dashboard: none, level: warn }".to_owned(),
        listeners.replace("plain,", "plain, timeouts: { body: 7s, write: 7s },"),
        listeners.replace("self_signed: [localhost]", "self_signed: [other], min_version: \"1.3\""),
    ] {
        assert_eq!(lb.reload(saying("x").yaml_section(&section)).await.unwrap().needs_restart, [""; 0], "{section}");
    }
}

#[tokio::test]
async fn routes_never_move_to_a_listener_they_were_not_meant_for() {
    let lb = saying("before").start().await;
    let listeners = TWO_LISTENERS;
    for (section, key) in [
        ("listeners: [{ name: plain, address: 127.0.0.1:0 }]".to_owned(), "listeners"),
        (listeners.replace("plain", "other"), "listeners[0].name"),
        (listeners.replacen("127.0.0.1:0", "127.0.0.2:0", 1), "listeners[0].address"),
        (listeners.replace(", tls: { self_signed: [localhost] }", ""), "listeners[1].tls"),
    ] {
        let section = section.replace(",                      tls", ", tls");
        let error = lb.reload(saying("after").yaml_section(&section)).await.unwrap_err().to_string();
        assert_eq!(error, format!("a change of {key} needs a restart"), "{section}");
        assert_eq!(lb.get("/").await.body, "before", "nothing is taken over");
    }
}

#[tokio::test]
async fn certificates_and_redirects_of_a_listener_are_swapped() {
    let lb = saying("routed").start().await;
    let shown = async |lb: &Lb| lb.tls().await.handshake.unwrap().certificate;
    let first = shown(&lb).await;
    let (cert, key) = Certificate::for_names(&["localhost"]).save(lb.folder(), "new");
    lb.reload(saying("routed")).await.unwrap();
    assert_eq!(shown(&lb).await, first, "a reload alone makes no new certificate");

    let changed = format!(
        "listeners:\n  - {{ name: plain, address: 127.0.0.1:0, redirect_to_https: 443 }}\n  - {{ name: secure, address: \
         127.0.0.1:0, tls: {{ certificates: [{{ cert: {cert:?}, key: {key:?} }}] }} }}"
    );
    let done = lb.reload(saying("routed").yaml_section(&changed)).await.unwrap();

    assert_eq!(done.needs_restart, [""; 0]);
    assert_ne!(shown(&lb).await, first);
    assert_eq!(lb.get("/x").await.field("location"), Some("https://localhost/x"));
}

#[tokio::test]
async fn a_proxy_that_is_trusted_now_is_not_limited_any_more() {
    let listeners = "listeners: [{ address: 127.0.0.1:0, max_connections_per_address: 1 }]";
    let limited = saying("x").yaml_section(listeners);
    let lb = limited.clone().start().await;
    let mut first = lb.raw().await;
    assert_eq!(first.exchange(GET).await.body, "x");
    lb.raw().await.expect_closed().await;

    lb.reload(limited.yaml_section("server: { trusted_proxies: [127.0.0.0/8] }")).await.unwrap();

    assert_eq!(lb.raw().await.exchange(GET).await.body, "x");
    assert_eq!(first.exchange(GET).await.body, "x");
}

/// A file for the program: its only route answers this.
fn file(body: &str, more: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nroutes: [{{ respond: {{ status: 200, body: \"{body}\" }} }}]\n\
         admin: {{ address: none }}\n{more}\n"
    )
}

const WATCH: &str = "server: { reload: { debounce: 20ms } }";
const NO_WATCH: &str = "server: { reload: { watch: false } }";

async fn address(program: &Portcullis) -> SocketAddr {
    let line = program.line_with("listening on ").await;
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn body(program: &Portcullis) -> String {
    Client::tcp(address(program).await).await.exchange(GET).await.text()
}

#[tokio::test]
async fn sighup_reads_the_file_again() {
    let program = Portcullis::run(&file("one", NO_WATCH));
    assert_eq!(body(&program).await, "one");

    std::fs::write(program.file(), file("two", NO_WATCH)).unwrap();
    program.signal("HUP");

    program.line_with("reload: done").await;
    assert_eq!(body(&program).await, "two");
}

#[tokio::test]
async fn a_reload_tells_what_has_changed_and_no_secret() {
    let with = |weight: u32, secret: &str| {
        let upstream = format!("upstreams: {{ app: {{ backends: [{{ url: 127.0.0.1:9, weight: {weight} }}] }} }}");
        file("one", &format!("{upstream}\nserver: {{ reload: {{ watch: false }}, secret: {secret} }}"))
    };
    let program = Portcullis::run(&with(1, "the first of all secrets"));
    program.line_with("listening on ").await;

    program.signal("HUP");
    program.line_with("reload: done: the file says what it said before").await;

    std::fs::write(program.file(), with(3, "the second of all secrets")).unwrap();
    program.signal("HUP");
    program.line_with("upstreams.app.backends[127.0.0.1:9].weight: 1 -> 3").await;
    program.line_with("server.secret: changed (not shown)").await;
    assert!(!program.lines().iter().any(|line| line.contains("all secrets")));
}

#[tokio::test]
async fn a_change_of_the_file_is_noticed_also_when_it_is_replaced() {
    let program = Portcullis::run(&file("one", WATCH));
    assert_eq!(body(&program).await, "one");

    std::fs::write(program.file(), file("two", WATCH)).unwrap();
    program.lines_with("reload: done", 1).await;
    assert_eq!(body(&program).await, "two");

    let beside = program.file().with_extension("new");
    std::fs::write(&beside, file("three", WATCH)).unwrap();
    std::fs::rename(&beside, program.file()).unwrap();
    program.lines_with("reload: done", 2).await;
    assert_eq!(body(&program).await, "three");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_why() {
    let program = Portcullis::run(&file("one", NO_WATCH));
    let connection = address(&program).await;

    std::fs::write(program.file(), file("two", "upstreams:\n  a: { backends: [nonsense:port], balanse: random }"))
        .unwrap();
    program.signal("HUP");

    program.line_with("nothing was changed").await;
    program.line_with("portcullis.yaml:5:").await;
    let said = program.line_with("balanse").await;
    assert_eq!(said.trim(), "portcullis.yaml:5:35: upstreams.a.balanse: there is no such key");
    program.line_with("did you mean `balance`?").await;
    assert_eq!(Client::tcp(connection).await.exchange(GET).await.body, "one");

    std::fs::remove_file(program.file()).unwrap();
    program.signal("HUP");
    program.lines_with("nothing was changed", 2).await;
    assert_eq!(Client::tcp(connection).await.exchange(GET).await.body, "one");
}

#[tokio::test]
async fn the_log_level_changes_with_the_file() {
    let at = |level: &str, body: &str| file(body, &format!("{NO_WATCH}\nlog: {{ level: {level}, access: none }}"));
    let program = Portcullis::run(&at("info", "one"));
    let mut client = Client::tcp(address(&program).await).await;

    std::fs::write(program.file(), at("error", "two")).unwrap();
    program.signal("HUP");
    while client.exchange(GET).await.body != "two" {}
    std::fs::write(program.file(), "nonsense").unwrap();
    program.signal("HUP");
    program.line_with("nothing was changed").await;
    std::fs::write(program.file(), at("info", "three")).unwrap();
    program.signal("HUP");
    program.line_with("reload: done").await;

    let done = program.lines().into_iter().filter(|line| line.contains("reload: done")).count();
    assert_eq!(done, 1, "the first reload has silenced itself");
}

#[tokio::test]
async fn certificates_that_are_replaced_on_disk_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let save = |folder: &Path, certificate: &Certificate| certificate.save(folder, "site");
    save(folder.path(), &Certificate::for_names(&["localhost"]));
    let yaml = "listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ cert: site.pem, key: site.key }] } }]\n\
                routes: [{ respond: { status: 200, body: x } }]\nadmin: { address: none }\n";
    std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
    let path = folder.path().to_owned();
    let program = Portcullis::start(folder, &["run", "-c", "portcullis.yaml"]);
    let address = address(&program).await;
    let mut old = Client::tls(address, "localhost").await;

    // Half of a change keeps the old one, and is told.
    let next = Certificate::for_names(&["localhost"]);
    std::fs::write(path.join("site.pem"), &next.cert_pem).unwrap();
    program.line_with("the old certificates stay in use").await;
    assert_ne!(shown(address).await, next.cert.to_vec());
    std::fs::write(path.join("site.key"), &next.key_pem).unwrap();
    program.line_with("certificates were read again").await;

    assert_eq!(shown(address).await, next.cert.to_vec());
    assert_eq!(old.exchange(GET).await.body, "x", "an open connection goes on");
}

#[tokio::test]
async fn a_key_that_is_written_a_moment_after_its_certificate_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    Certificate::for_names(&["localhost"]).save(folder.path(), "site");
    let yaml = "listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ cert: site.pem, key: site.key }] } }]\n\
                routes: [{ respond: { status: 200, body: x } }]\nadmin: { address: none }\n";
    std::fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
    let path = folder.path().to_owned();
    let program = Portcullis::start(folder, &["run", "-c", "portcullis.yaml"]);
    let address = address(&program).await;

    let next = Certificate::for_names(&["localhost"]);
    std::fs::write(path.join("site.pem"), &next.cert_pem).unwrap();
    let written = Instant::now();
    wait_until("300 ms should pass", || written.elapsed() >= Duration::from_millis(300)).await;
    std::fs::write(path.join("site.key"), &next.key_pem).unwrap();
    program.line_with("certificates were read again").await;

    assert_eq!(shown(address).await, next.cert.to_vec());
    assert!(!program.lines().iter().any(|line| line.contains("ERROR")), "{:#?}", program.lines());
}

async fn shown(address: SocketAddr) -> Vec<u8> {
    let client = Client::tls_with(address, "localhost", &Offer::default()).await.unwrap();
    client.handshake.unwrap().certificate
}
