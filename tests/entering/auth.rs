//! Who is let in by name and password, and what does a backend learn of them? Basic authentication through the front door.

use crate::support;

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use support::backend::response;
use support::{Act, Backend, Lb, Script};
use tempfile::TempDir;

/// The file of a front door's users: ann with bcrypt, bob with argon2.
fn users() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ann = bcrypt::hash("opensesame", 4).unwrap();
    // hunter2, salted with "somesaltsomesalt".
    let bob = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$/W8LPvoaai7U3XREtgKuI78eDZLHrsDSFj5hpFvetZc";
    fs::write(folder.path().join("users"), format!("ann:{ann}\nbob:{bob}\n")).unwrap();
    folder
}

async fn guarded(backend: &Backend, more: &str) -> Lb {
    let route = format!("auth: {{ basic: users, headers: {{ X-User: name }}{more} }}");
    Lb::with_backends([backend]).yaml_route(&route).try_start_in(users()).await.unwrap()
}

fn basic(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
}

fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[tokio::test]
async fn whoever_knows_a_password_comes_in_and_the_backend_learns_the_name_alone() {
    let backend = Backend::answering(200, "in");
    let lb = guarded(&backend, "").await;
    let forged = format!("{}X-User: root\r\nX_User: root\r\nConnection: x-user\r\n", basic("ann", "opensesame"));
    for (lines, name) in [(forged, "ann"), (basic("bob", "hunter2"), "bob"), (basic("ann", "opensesame"), "ann")] {
        assert_eq!(lb.send(&get(&lines)).await.status, 200, "{lines}");
        let received = backend.received().pop().unwrap();
        assert_eq!(received.field("x-user"), Some(name));
        assert_eq!(received.head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-user")).count(), 1);
        assert_eq!(received.field("x_user"), None, "to many backends this is the same field");
        assert_eq!(received.field("authorization"), None);
    }
    let names: Vec<_> = lb.access_log(3).await.iter().map(|line| line["identity"].clone()).collect();
    assert_eq!(names, ["ann", "bob", "ann"]);
}

#[tokio::test]
async fn whoever_does_not_is_told_no_more_than_that() {
    let backend = Backend::answering(200, "in");
    let lb = guarded(&backend, "").await;
    let twice = format!("{}{}", basic("ann", "opensesame"), basic("bob", "hunter2"));
    let long = "x".repeat(100);
    let wrong = [
        (String::new(), "credentials_missing"),
        (basic("ann", "opensesam"), "credentials_wrong"),
        (basic("ann", &format!("opensesame{long}")), "credentials_wrong"),
        (basic("ann", ""), "credentials_wrong"),
        (basic("nobody", "opensesame"), "credentials_wrong"),
        (basic("bob", "opensesame"), "credentials_wrong"),
        (basic("", "opensesame"), "credentials_malformed"),
        (basic("ann", "open\u{7}sesame"), "credentials_malformed"),
        (twice, "credentials_malformed"),
        ("Authorization: Basic\r\n".into(), "credentials_malformed"),
        ("Authorization: Basic !!!\r\n".into(), "credentials_malformed"),
        (format!("Authorization: Basic {}\r\n", STANDARD.encode("ann")), "credentials_malformed"),
        ("Authorization: Bearer abc\r\n".into(), "credentials_malformed"),
    ];
    let mut answers = Vec::new();
    for (lines, _) in &wrong {
        let answer = lb.send(&get(lines)).await;
        assert_eq!(answer.field("www-authenticate"), Some("Basic realm=\"restricted\", charset=\"UTF-8\""), "{lines}");
        answers.push((answer.status, answer.text()));
    }
    let expected = (401, "401 Unauthorized: valid credentials are needed\n".to_owned());
    assert!(answers.iter().all(|answer| *answer == expected), "{answers:?}");
    let log = lb.access_log(wrong.len()).await;
    for ((lines, reason), line) in wrong.iter().zip(&log) {
        assert_eq!((&line["reason"], &line["identity"]), (&(*reason).into(), &serde_json::Value::Null), "{lines}");
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn it_is_the_same_over_http2_and_for_upgrades() {
    let backend = Backend::upgrading_echo();
    let lb = guarded(&backend, "").await;
    let upgrade = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert_eq!(lb.send(&get(upgrade)).await.status, 401);
    let mut client = lb.raw().await;
    client.send(get(&format!("{upgrade}{}", basic("ann", "opensesame")))).await;
    assert_eq!(client.read_response_to_head().await.status, 101);

    let answering = Backend::answering(200, "in");
    let lb = guarded(&answering, "").await;
    let client = lb.h2().await;
    assert_eq!(client.get("/").await.status, 401);
    let mut request = client.build("GET", "/");
    let value = format!("Basic {}", STANDARD.encode("ann:opensesame"));
    request.headers_mut().insert("authorization", value.parse().unwrap());
    assert_eq!(client.request(request, &[]).await.unwrap().status, 200);
    assert_eq!(answering.only_request().field("x-user"), Some("ann"));
}

#[tokio::test]
async fn a_backend_that_is_to_see_the_credentials_sees_them() {
    let backend = Backend::answering(200, "in");
    let lb = guarded(&backend, ", keep: true").await;
    assert_eq!(lb.send(&get(&basic("ann", "opensesame"))).await.status, 200);
    assert_eq!(backend.only_request().field("authorization"), Some("Basic YW5uOm9wZW5zZXNhbWU="));
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_broken_one_does_not() {
    let backend = Backend::answering(200, "in");
    let lb = guarded(&backend, "").await;
    let users = lb.folder().join("users");
    let ask = async |password: &str| lb.send(&get(&basic("ann", password))).await.status;
    assert_eq!((ask("opensesame").await, ask("other").await), (200, 401));
    assert!(lb.front().followed_files().contains(&users));

    fs::write(&users, "ann:plain").unwrap();
    lb.front().reread_files();
    assert_eq!((ask("opensesame").await, ask("other").await), (200, 401));

    fs::write(&users, format!("ann:{}", bcrypt::hash("other", 4).unwrap())).unwrap();
    lb.front().reread_files();
    assert_eq!((ask("opensesame").await, ask("other").await), (401, 200));
}

#[tokio::test]
async fn an_answer_for_one_is_not_stored_for_others_unless_the_backend_says_so() {
    for (control, sent) in [("max-age=60", 2), ("max-age=60, public", 1)] {
        let answer = response(200, &[("Cache-Control", control)], "in");
        let backend = Backend::writing(answer);
        let lb = guarded(&backend, " }\n    cache: { ttl: null").await;
        for (name, password) in [("ann", "opensesame"), ("bob", "hunter2")] {
            assert_eq!(lb.send(&get(&basic(name, password))).await.status, 200);
        }
        assert_eq!(lb.send(&get("")).await.status, 401, "what is stored is for those who are let in");
        assert_eq!(backend.requests(), sent, "{control}");
    }
}

#[tokio::test]
async fn what_is_stale_is_fetched_anew_in_the_name_of_whoever_came_in() {
    let says = [("Cache-Control", "public, max-age=5, stale-while-revalidate=60"), ("Age", "10")];
    let answer = |body| response(200, &says, body);
    let answers = [answer("old"), answer("new")].map(|answer| vec![Act::ReadBody, Act::Write(answer)]);
    let backend = Backend::scripted(Script::each(answers));
    let lb = guarded(&backend, " }\n    cache: {").await;
    let ask = async || lb.send(&get(&basic("ann", "opensesame"))).await.text();
    assert_eq!((ask().await, ask().await), ("old".to_owned(), "old".to_owned()));
    backend.until_requests(2).await;
    let refresh = &backend.received()[1];
    assert_eq!((refresh.field("x-user"), refresh.field("authorization")), (Some("ann"), None));
}
