//! Who is let in by an API key, and what does a backend learn of them? Keys in files and databases, through the front
//! door.

use crate::support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use portcullis::auth::keys::{Database, NewKey};
use portcullis::config::{Key, KeyLimits, parse_keys};
use support::backend::response;
use support::front_door::Builder;
use support::{Backend, Lb, Portcullis, in_time};
use tempfile::TempDir;
use tokio::time::interval;

/// A key of our own, and the entry of a file for it.
fn entry(more: &str) -> (String, String) {
    let key = NewKey::make();
    (key.text().to_owned(), format!("- {{ hash: {}, {more} }}\n", key.hash().show()))
}

fn folder_with(keys: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("keys.yaml"), keys).unwrap();
    folder
}

const AUTH: &str = "{ api_keys: team, query: api_key, headers: { X-User: name, X-Plan: plan } }";

async fn guarded(backend: &Backend, keys: &str, auth: &str) -> Lb {
    let builder = Lb::with_backends([backend]).yaml_section("keys: { team: { file: keys.yaml } }");
    let builder = builder.yaml_route("name: api").yaml_route(&format!("auth: {auth}"));
    builder.try_start_in(folder_with(keys)).await.unwrap()
}

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn with(key: &str) -> String {
    get("/", &format!("X-API-Key: {key}\r\n"))
}

/// Asks again and again until this is the answer's status.
async fn until(lb: &Lb, request: &str, status: u16) {
    let asking = async {
        let mut tick = interval(Duration::from_millis(20));
        while lb.send(request).await.status != status {
            tick.tick().await;
        }
    };
    in_time(&format!("the status should become {status}"), asking).await;
}

#[tokio::test]
async fn a_key_opens_wherever_it_is_shown_and_the_backend_learns_whose_it_is_alone() {
    let backend = Backend::answering(200, "in");
    let (key, entry) = entry("name: ci, plan: gold");
    let lb = guarded(&backend, &entry, AUTH).await;
    let encoded = key.replace('_', "%5f");
    let forged = "X-User: root\r\nx-plan: all\r\nConnection: x-plan\r\n";
    for (request, target) in [
        (get("/a?b=%20", &format!("{forged}X-API-Key: {key}\r\n")), "/a?b=%20"),
        (get("/a", &format!("{forged}Authorization: bearer {key}\r\n")), "/a"),
        (get(&format!("/a?x=1&api_key={key}&y"), forged), "/a?x=1&y"),
        (get(&format!("/a?%61pi%5Fkey={encoded}"), &format!("Referer: http://a/?api_key={key}\r\n")), "/a"),
        (get(&format!("/a?api_key={key}"), &format!("X-API-Key: {key}\r\nAuthorization: Bearer {key}\r\n")), "/a"),
    ] {
        assert_eq!(lb.send(&request).await.status, 200, "{request}");
        let received = backend.received().pop().unwrap();
        assert_eq!(received.head.first_line, format!("GET {target} HTTP/1.1"));
        let fields =
            ["x-user", "x-plan", "x-api-key", "authorization"].map(|name| received.field(name).map(str::to_owned));
        assert_eq!(fields, [Some("ci".to_owned()), Some("gold".to_owned()), None, None]);
        assert!(!received.head.raw.windows(key.len()).any(|bytes| bytes == key.as_bytes()), "{received:?}");
    }
    assert!(lb.access_log(5).await.iter().all(|line| line["identity"] == "ci" && line["reason"] == "ok"));
}

#[tokio::test]
async fn whoever_has_no_good_key_is_told_no_more_than_that() {
    let backend = Backend::answering(200, "in");
    let (old, expired) = entry("name: a, expires: 2020-01-01T00:00:00Z");
    let (new, early) = entry("name: a, not_before: 2999-01-01T00:00:00Z");
    let (route, elsewhere) = entry("name: a, routes: [web]");
    let (method, writer) = entry("name: a, methods: [POST]");
    let (address, far) = entry("name: a, addresses: [192.0.2.0/24]");
    let (good, here) = entry("name: a, routes: [api], methods: [GET], addresses: [127.0.0.0/8, \"::1\"]");
    let keys = [expired, early, elsewhere, writer, far, here].concat();
    let lb = guarded(&backend, &keys, AUTH).await;
    let refused = [
        (get("/", ""), 401, "credentials_missing"),
        (get("/", "Authorization: Basic YTpi\r\n"), 401, "credentials_missing"),
        (with("pck_nobody00_abcdefghijklmnopqrstuvwxyz012345"), 401, "credentials_wrong"),
        (with(&good[..good.len() - 1]), 401, "credentials_wrong"),
        (with("short"), 401, "credentials_wrong"),
        (with(""), 401, "credentials_malformed"),
        (get("/", &format!("X-API-Key: {good}\r\nX-API-Key: {good}\r\n")), 401, "credentials_malformed"),
        (get("/", &format!("X-API-Key: {good}\r\nAuthorization: Bearer {old}\r\n")), 401, "credentials_malformed"),
        (get(&format!("/?api_key={good}&api_key={good}"), ""), 401, "credentials_malformed"),
        (get("/?api_key=%f", ""), 401, "credentials_malformed"),
        (with(&old), 401, "credentials_expired"),
        (with(&new), 401, "credentials_too_early"),
        (with(&route), 403, "key_route"),
        (with(&method), 403, "key_method"),
        (with(&address), 403, "key_address"),
    ];
    for (request, status, _) in &refused {
        let answer = lb.send(request).await;
        let words = match status {
            401 => "401 Unauthorized: valid credentials are needed\n",
            _ => "403 Forbidden: this is not allowed\n",
        };
        assert_eq!((answer.status, answer.text().as_str()), (*status, words), "{request}");
        let challenge = (*status == 401).then_some("Bearer realm=\"restricted\"");
        assert_eq!(answer.field("www-authenticate"), challenge, "{request}");
    }
    assert_eq!(lb.send(&with(&good)).await.status, 200);
    let log = lb.access_log(refused.len() + 1).await;
    for ((request, _, reason), line) in refused.iter().zip(&log) {
        assert_eq!((&line["reason"], line["identity"].is_null()), (&(*reason).into(), true), "{request}");
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn it_is_the_same_over_http2_and_for_upgrades() {
    let (key, entry) = entry("name: ci");
    let backend = Backend::upgrading_echo();
    let lb = guarded(&backend, &entry, AUTH).await;
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(lb.send(&get("/", upgrade)).await.status, 401);
    let mut client = lb.raw().await;
    client.send(get(&format!("/?api_key={key}"), upgrade)).await;
    assert_eq!(client.read_response_to_head().await.status, 101);
    assert_eq!(backend.only_request().head.first_line, "GET / HTTP/1.1");

    let answering = Backend::answering(200, "in");
    let lb = guarded(&answering, &entry, AUTH).await;
    let client = lb.h2().await;
    assert_eq!(client.get("/").await.status, 401);
    assert_eq!(client.get(&format!("/?a&api_key={key}")).await.status, 200);
    let mut request = client.build("GET", "/b");
    request.headers_mut().insert("x-api-key", key.parse().unwrap());
    assert_eq!(client.request(request, &[]).await.unwrap().status, 200);
    let received = answering.received();
    assert_eq!((received[0].head.first_line.as_str(), received[0].field("x-user")), ("GET /?a HTTP/1.1", Some("ci")));
    assert_eq!((received[1].field("x-api-key"), received[1].field("x-user")), (None, Some("ci")));
}

#[tokio::test]
async fn a_backend_that_is_to_see_the_key_sees_it_but_never_in_the_query() {
    let backend = Backend::answering(200, "in");
    let (key, entry) = entry("name: ci");
    let lb = guarded(&backend, &entry, "{ api_keys: team, query: api_key, keep: true }").await;
    for request in
        [with(&key), get(&format!("/?api_key={key}"), ""), get("/", &format!("Authorization: Bearer {key}\r\n"))]
    {
        assert_eq!(lb.send(&request).await.status, 200);
    }
    let received = backend.received();
    assert_eq!(received[0].field("x-api-key"), Some(&*key));
    assert_eq!(received[1].head.first_line, "GET / HTTP/1.1");
    assert_eq!(received[2].field("authorization"), Some(&*format!("Bearer {key}")));
}

#[tokio::test]
async fn the_key_is_no_part_of_what_is_stored_nor_of_where_somebody_is_sent() {
    let backend = Backend::writing(response(200, &[("Cache-Control", "max-age=60, public")], "in"));
    let ((one, first), (two, second)) = (entry("name: one"), entry("name: two"));
    let lb = guarded(&backend, &format!("{first}{second}"), &format!("{AUTH}\n    cache: {{}}")).await;
    for key in [&one, &two] {
        assert_eq!(lb.send(&get(&format!("/a?api_key={key}"), "")).await.status, 200);
    }
    assert_eq!(lb.send(&get("/a", &format!("X-API-Key: {one}\r\n"))).await.status, 200);
    assert_eq!(lb.send(&get("/a", "")).await.status, 401);
    assert_eq!(backend.requests(), 1);

    let yaml = "keys: { team: { file: keys.yaml } }\nroutes:\n  - redirect: { to: https://b.example/* }\n    \
                auth: { api_keys: team, query: api_key }\n";
    let lb = Lb::yaml(yaml).try_start_in(folder_with(&first)).await.unwrap();
    let answer = lb.send(&get(&format!("/a?b=1&api_key={one}"), "")).await;
    assert_eq!((answer.status, answer.field("location")), (308, Some("https://b.example/a?b=1")));
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_broken_one_does_not() {
    let backend = Backend::answering(200, "in");
    let ((one, first), (two, second)) = (entry("name: one"), entry("name: two"));
    let lb = guarded(&backend, &first, AUTH).await;
    let file = lb.folder().join("keys.yaml");
    assert!(lb.front().followed_files().contains(&file));
    let ask = async |key: &str| lb.send(&with(key)).await.status;
    assert_eq!((ask(&one).await, ask(&two).await), (200, 401));
    for broken in ["- name: nobody\n", "", "{}"] {
        fs::write(&file, broken).unwrap();
        lb.front().reread_files();
        assert_eq!((ask(&one).await, ask(&two).await), (200, 401), "{broken}");
    }
    fs::write(&file, &second).unwrap();
    lb.front().reread_files();
    assert_eq!((ask(&one).await, ask(&two).await), (401, 200));
}

#[tokio::test]
async fn a_key_that_an_operator_brings_is_as_good() {
    let backend = Backend::answering(200, "in");
    // printf %s 0123456789abcdef | sha256sum
    let key = "0123456789abcdef";
    let known = "sha256:9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f";
    let lb = guarded(&backend, &format!("- {{ name: old, hash: {known} }}\n"), AUTH).await;
    assert_eq!(lb.send(&with(key)).await.status, 200);
}

fn key_of(name: &str, made: &NewKey) -> Key {
    Key {
        id: Some(made.id.as_str().into()),
        hash: made.hash(),
        name: name.into(),
        plan: None,
        limits: KeyLimits::default(),
        not_before: None,
        expires: None,
        revoked: None,
    }
}

/// A database in this folder with one key.
fn store_in(folder: &Path) -> (Database, String) {
    let mut database = Database::open_or_make(&folder.join("keys.db")).unwrap();
    let made = NewKey::make();
    database.add(&key_of("ci", &made), Timestamp::now()).unwrap();
    (database, made.text().to_owned())
}

fn builder(backend: &Backend, on_error: &str) -> Builder {
    let store = format!("keys: {{ team: {{ sqlite: keys.db, on_store_error: {on_error} }} }}");
    Lb::with_backends([backend]).yaml_section(&store).yaml_route(&format!("auth: {AUTH}"))
}

async fn with_database(backend: &Backend, folder: TempDir, on_error: &str) -> Lb {
    builder(backend, on_error).try_start_in(folder).await.unwrap()
}

#[tokio::test]
async fn a_database_is_followed_while_it_changes() {
    let backend = Backend::answering(200, "in");
    let folder = tempfile::tempdir().unwrap();
    let (mut database, key) = store_in(folder.path());
    let lb = with_database(&backend, folder, "deny").await;
    assert_eq!(lb.send(&with(&key)).await.status, 200, "the first request finds it read");

    let later = NewKey::make();
    database.add(&key_of("web", &later), Timestamp::now()).unwrap();
    until(&lb, &with(later.text()), 200).await;
    database.revoke(&later.id, Timestamp::now()).unwrap();
    until(&lb, &with(later.text()), 401).await;
    assert_eq!(lb.send(&with(&key)).await.status, 200);
}

#[tokio::test]
async fn a_rotated_key_opens_until_the_overlap_is_over() {
    let backend = Backend::answering(200, "in");
    let folder = tempfile::tempdir().unwrap();
    let (mut database, old) = store_in(folder.path());
    let lb = with_database(&backend, folder, "deny").await;
    let now = Timestamp::now();
    let hour = Duration::from_secs(3600);
    let (second, third) = (NewKey::make(), NewKey::make());

    database.rotate("ci", (now, now + hour), |_| (key_of("ci", &second), ())).unwrap().unwrap();
    until(&lb, &with(second.text()), 200).await;
    assert_eq!(lb.send(&with(&old)).await.status, 200);

    database.rotate("ci", (now, now - hour), |_| (key_of("ci", &third), ())).unwrap().unwrap();
    until(&lb, &with(third.text()), 200).await;
    for over in [old.as_str(), second.text()] {
        assert_eq!(lb.send(&with(over)).await.status, 401);
    }
}

#[tokio::test]
async fn a_store_that_is_missing_lets_nobody_in_until_it_is_there() {
    let backend = Backend::answering(200, "in");
    let lb = with_database(&backend, tempfile::tempdir().unwrap(), "deny").await;
    let answer = lb.send(&get("/", "")).await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (503, "503 Service Unavailable: the service is not available at the moment\n")
    );
    assert_eq!(lb.access_log(1).await[0]["reason"], "auth_unavailable");

    let (_database, key) = store_in(lb.folder());
    until(&lb, &with(&key), 200).await;
    assert_eq!(lb.send(&get("/", "")).await.status, 401);
}

#[tokio::test]
async fn a_store_that_is_missing_may_let_everybody_in_as_nobody() {
    let backend = Backend::answering(200, "in");
    let lb = with_database(&backend, tempfile::tempdir().unwrap(), "allow").await;
    let request = get("/?api_key=whatever-it-is", "X-User: root\r\nX-API-Key: another-one\r\n");
    assert_eq!(lb.send(&request).await.status, 200);
    let received = backend.only_request();
    assert_eq!((received.field("x-user"), received.field("x-api-key")), (None, None));
    assert_eq!(received.head.first_line, "GET / HTTP/1.1");
    assert!(lb.access_log(1).await[0]["identity"].is_null());

    let (_database, key) = store_in(lb.folder());
    until(&lb, &get("/", ""), 401).await;
    assert_eq!(lb.send(&with(&key)).await.status, 200);
}

#[tokio::test]
async fn a_store_that_is_locked_or_damaged_leaves_the_last_good_keys_in_use() {
    let backend = Backend::answering(200, "in");
    for on_error in ["deny", "allow"] {
        let folder = tempfile::tempdir().unwrap();
        let (database, key) = store_in(folder.path());
        let path = folder.path().join("keys.db");
        let lb = with_database(&backend, folder, on_error).await;
        let unchanged = async |lb: &Lb| {
            assert_eq!(lb.send(&with(&key)).await.status, 200);
            assert_eq!(lb.send(&get("/", "")).await.status, 401);
        };
        drop(database);
        fs::write(&path, "this is no database, but it is long enough to be taken for the head of one, almost......")
            .unwrap();
        // What was read outlives a reload, also one that would decide otherwise.
        let other = if on_error == "deny" { "allow" } else { "deny" };
        lb.reload(builder(&backend, other)).await.unwrap();
        unchanged(&lb).await;
        fs::remove_file(&path).unwrap();
        let (_database, new) = store_in(lb.folder());
        until(&lb, &with(&new), 200).await;
        assert_eq!(lb.send(&with(&key)).await.status, 401, "it is another store now");
    }
}

#[tokio::test]
async fn a_store_that_is_out_of_reach_for_too_long_lets_nobody_in() {
    let backend = Backend::answering(200, "in");
    for (on_error, status) in [("deny", 503), ("allow", 200)] {
        let folder = tempfile::tempdir().unwrap();
        let (database, key) = store_in(folder.path());
        let path = folder.path().join("keys.db");
        let lb = with_database(&backend, folder, &format!("{on_error}, stale_for: 1s")).await;
        assert_eq!(lb.send(&with(&key)).await.status, 200);
        drop(database);
        fs::remove_file(&path).unwrap();
        let mut tick = interval(Duration::from_millis(200));
        for _ in 0..10 {
            tick.tick().await;
            let now = lb.send(&with(&key)).await.status;
            assert!(now == 200 || now == status, "{on_error}: {now}");
        }
        until(&lb, &with(&key), status).await;
        assert_eq!(lb.send(&get("/", "")).await.status, if status == 503 { 503 } else { 401 });
        let (_database, new) = store_in(lb.folder());
        until(&lb, &with(&new), 200).await;
    }
}

#[tokio::test]
async fn a_store_that_is_locked_at_the_start_is_read_when_it_is_free() {
    let backend = Backend::answering(200, "in");
    let folder = tempfile::tempdir().unwrap();
    let (_database, key) = store_in(folder.path());
    let holder = rusqlite::Connection::open(folder.path().join("keys.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let lb = with_database(&backend, folder, "deny").await;
    assert_eq!(lb.send(&with(&key)).await.status, 503);
    holder.execute_batch("COMMIT").unwrap();
    until(&lb, &with(&key), 200).await;

    // Whoever changes it for long does not keep anybody waiting.
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(lb.send(&with(&key)).await.status, 200);
}

#[tokio::test]
async fn no_log_ever_shows_a_key() {
    let backend = Backend::answering(200, "in");
    let folder = tempfile::tempdir().unwrap();
    let (mut database, live) = store_in(folder.path());
    let (filed, entry) = entry("name: ci");
    fs::write(folder.path().join("keys.yaml"), entry).unwrap();
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: none }}\nlog: {{ level: trace }}\n\
         keys: {{ files: {{ file: keys.yaml }}, team: {{ sqlite: keys.db }} }}\n\
         upstreams: {{ app: {{ backends: [{:?}], health_check: none }} }}\nroutes:\n\
         \x20 - {{ match: {{ path: /live }}, upstream: app, auth: {{ api_keys: team, query: k }} }}\n\
         \x20 - {{ match: {{ path: /file }}, upstream: app, auth: {{ api_keys: files, query: k, keep: true }} }}\n\
         \x20 - {{ match: {{ path: /sent }}, redirect: {{ to: /live }}, auth: {{ api_keys: files, query: k }} }}\n",
        backend.url(),
    );
    fs::write(folder.path().join("portcullis.yaml"), yaml).unwrap();
    let program = Portcullis::start(folder, &["run"]);
    let address = program.line_with("listening on ").await.rsplit(' ').next().unwrap().parse().unwrap();
    let wrong = "pck_nobody00_abcdefghijklmnopqrstuvwxyz012345";
    let mut count = 0;
    for key in [live.as_str(), &filed, wrong] {
        for path in ["/live", "/file", "/sent", "/none"] {
            for request in [
                get(&format!("{path}?k={key}"), ""),
                get(&format!("{path}?k={key}&k={key}"), ""),
                get(path, &format!("X-API-Key: {key}\r\nReferer: http://a/?k={key}\r\n")),
                get(path, &format!("Authorization: Bearer {key}\r\n")),
            ] {
                support::Client::tcp(address).await.exchange(request).await;
                count += 1;
            }
        }
    }
    let broken = format!("- {filed}\n- {{ name: {filed}, hash: {filed} }}\n");
    fs::write(program.file().with_file_name("keys.yaml"), broken).unwrap();
    program.line_with("what it said before stays in use").await;
    database.revoke("ci", Timestamp::now()).unwrap();
    program.lines_with("\"reason\":", count).await;
    for line in program.lines() {
        for key in [live.as_str(), &filed, wrong] {
            let secret = key.rsplit('_').next().unwrap();
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[test]
fn what_the_command_makes_for_a_file_is_read_from_it() {
    let output =
        Portcullis::output(&["keys", "new", "--hash-only", "--name", "ci", "--route", "api", "--expires", "30d"]);
    let (entry, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{said}");
    let keys = parse_keys(entry.as_bytes()).unwrap();
    let key = said.trim().rsplit(' ').next().unwrap();
    assert!(key.starts_with(&format!("pck_{}_", keys[0].id.as_deref().unwrap())) && !entry.contains(key));
    assert_eq!((&*keys[0].name, keys[0].limits.routes.len(), keys[0].expires.is_some()), ("ci", 1, true));
}

#[tokio::test]
async fn a_redirect_to_https_takes_no_key_along() {
    let (key, entry) = entry("name: ci");
    let listeners = "listeners:\n  - { address: 127.0.0.1:0, redirect_to_https: 443 }";
    let builder = Lb::yaml("upstreams: { app: { backends: [127.0.0.1:1], health_check: none } }\n");
    let builder = builder.yaml_section(listeners).yaml_section("keys: { team: { file: keys.yaml } }");
    let routes = "routes:\n  - { upstream: app, auth: { api_keys: team, query: api_key } }";
    let lb = builder.yaml_section(routes).try_start_in(folder_with(&entry)).await.unwrap();
    for (target, location) in [
        (format!("/a?api_key={key}&b=%20&%61pi_key=x"), "https://a/a?b=%20"),
        (format!("/a?api_key={key}"), "https://a/a"),
        ("/a?b=api_key".to_owned(), "https://a/a?b=api_key"),
    ] {
        let answer = lb.send(&get(&target, "")).await;
        assert_eq!((answer.status, answer.field("location")), (308, Some(location)), "{target}");
    }
}
