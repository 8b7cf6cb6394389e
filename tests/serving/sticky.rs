//! Sticky sessions: the cookie, and who serves a client that brings it.

use crate::support;

use std::collections::HashSet;

use support::front_door::Builder;
use support::{Backend, Client, Lb, Response};

const STICKY: &str = "sticky: { cookie: stay, ttl: 1h, same_site: strict }";
const SECRET: &str = "server: { secret: an example that has length }";

fn app(backends: &[&Backend]) -> Builder {
    Lb::with_backends(backends.iter().copied()).yaml_upstream(STICKY)
}

async fn get(client: &mut Client, cookie: &str) -> Response {
    client.exchange(format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: a=b; {cookie}\r\n\r\n")).await
}

/// The cookie that a response sets, as a client sends it back.
fn cookie(response: &Response) -> Option<String> {
    Some(response.field("set-cookie")?.split(';').next()?.to_owned())
}

/// Who serves a client that brings this cookie, and whether it ever gets another one.
async fn servers(lb: &Lb, cookie: &str, requests: usize) -> (HashSet<String>, bool) {
    let mut client = lb.raw().await;
    let (mut names, mut another) = (HashSet::new(), false);
    for _ in 0..requests {
        let response = get(&mut client, cookie).await;
        another |= response.field("set-cookie").is_some();
        names.insert(response.text());
    }
    (names, another)
}

fn only(name: &str) -> (HashSet<String>, bool) {
    (HashSet::from([name.to_owned()]), false)
}

#[tokio::test]
async fn a_client_comes_back_to_the_backend_that_it_has_been_with() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let lb = app(&[&a, &b, &c]).start().await;
    for _ in 0..3 {
        let first = lb.get("/").await;
        assert_eq!(servers(&lb, &cookie(&first).unwrap(), 10).await, only(&first.text()));
    }
    assert_eq!(servers(&lb, "other=x", 30).await.0.len(), 3, "who has no session goes anywhere");
}

#[tokio::test]
async fn the_cookie_is_locked_up_and_secure_where_it_can_be() {
    let a = Backend::named("a");
    let lb = app(&[&a]).start().await;
    let plain = lb.get("/").await.field("set-cookie").unwrap().to_owned();
    let tls = get(&mut lb.tls().await, "").await.field("set-cookie").unwrap().to_owned();

    let (value, attributes) = plain.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Max-Age=3600; HttpOnly; SameSite=Strict");
    let hex = value.strip_prefix("stay=").unwrap();
    assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
    assert!(tls.ends_with("; SameSite=Strict; Secure"), "{tls}");
}

#[tokio::test]
async fn when_its_backend_is_gone_the_client_moves_and_stays_where_it_is_then() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let lb = app(&[&a, &b]).start().await;
    let first = lb.get("/").await;
    let (gone, left) = if first.body == "a" { (&a, "b") } else { (&b, "a") };

    gone.stop().await;
    let moved = get(&mut lb.raw().await, &cookie(&first).unwrap()).await;
    assert_eq!((moved.status, moved.text()), (200, left.to_owned()));
    gone.restart().await;

    assert_eq!(servers(&lb, &cookie(&moved).unwrap(), 10).await, only(left));
    let lines = lb.access_log(12).await;
    assert_eq!(lines[1]["attempts"].as_array().unwrap().len(), 2, "{}", lines[1]);
}

#[tokio::test]
async fn a_session_outlives_a_reload_and_with_a_secret_a_restart() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let lb = app(&[&a, &b, &c]).start().await;
    let first = lb.get("/").await;
    let own = cookie(&first).unwrap();
    lb.reload(app(&[&c, &b, &a]).yaml_section("server: { drain_delay: 1s }")).await.unwrap();
    assert_eq!(servers(&lb, &own, 10).await, only(&first.text()));

    let another = app(&[&a, &b, &c]).yaml_section(SECRET).start().await;
    assert!(servers(&another, &own, 1).await.1, "a cookie of the other secret");
    let first = another.get("/").await;
    drop(another);
    let third = app(&[&c, &a, &b]).yaml_section(SECRET).start().await;
    assert_eq!(servers(&third, &cookie(&first).unwrap(), 10).await, only(&first.text()));
}

#[tokio::test]
async fn nobody_makes_a_cookie_but_us() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let lb = app(&[&a, &b]).start().await;
    let good = cookie(&lb.get("/").await).unwrap();
    let digit = if good.ends_with('0') { "1" } else { "0" };
    let forged = format!("{}{digit}", &good[..good.len() - 1]);
    for forged in [forged.as_str(), "stay=", "stay=127.0.0.1:80", "stay=%00", &"stay=a".repeat(500)] {
        let (names, another) = servers(&lb, forged, 10).await;
        assert!(another && names.len() == 2, "{forged}");
    }
}

#[tokio::test]
async fn an_error_of_a_backend_begins_no_session() {
    let failing = Backend::answering(500, "no");
    let lb = app(&[&failing]).start().await;
    assert_eq!(lb.get("/").await.field("set-cookie"), None);
}

#[tokio::test]
async fn a_secret_may_stand_in_a_file() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let in_file = async || {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "an example that has length\n").unwrap();
        let builder = app(&[&a, &b, &c]).yaml_section("server: { secret: \"file:secret\" }");
        builder.try_start_in(folder).await.unwrap()
    };
    let first = in_file().await.get("/").await;
    let spelt_out = app(&[&a, &b, &c]).yaml_section(SECRET).start().await;

    assert_eq!(servers(&spelt_out, &cookie(&first).unwrap(), 10).await, only(&first.text()));
}
