//! Many clients and one answer: who waits for whom, who reads along, and what becomes of answers that break off.

use crate::support;

use bytes::Bytes;
use support::backend::response;
use support::cached::{ask, backend, backend_saying, caching, crowd, fresh, get, request, words};
use support::{Act, Backend, Lb, Script, all_of, wait_until};

const CROWD: usize = 50;
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD_OF_TEN: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\n";
const HEAD_OF_CHUNKS: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Half of a body that is too large for any buffer on its way; so what has come of it has been passed on.
const HALF: usize = 512 << 10;

/// What a client has read for sure when half of the body is there.
const SOON: usize = HALF / 2;

fn halves() -> Vec<Act> {
    let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n", 2 * HALF);
    let half = "x".repeat(HALF);
    held(&[&(head + &half), &half])
}

/// Waits for a release before each of these.
fn held(parts: &[&str]) -> Vec<Act> {
    let mut acts = vec![Act::ReadBody];
    for part in parts {
        acts.extend([Act::Hold, Act::Write(Bytes::copy_from_slice(part.as_bytes()))]);
    }
    acts
}

/// The head that these bytes begin with, as text, and how many there are of it.
async fn read_head(client: &mut support::Client) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend_from_slice(&client.read_exactly(1).await);
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn fifty_clients_at_once_are_one_request_to_the_backend() {
    let backend = Backend::scripted(Script::each([held(&[HEAD_OF_TEN, "01234", "56789"])]));
    let lb = caching(&backend, "{}").await;
    let mut clients = crowd(&lb, CROWD, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == CROWD).await;
    backend.release_all();
    for client in &mut clients {
        assert_eq!(client.read_response().await.text(), "0123456789");
    }
    assert_eq!(backend.requests(), 1);
    let mut words = words(&lb, CROWD).await;
    words.sort();
    assert_eq!(words[CROWD - 1], "miss");
    assert!(words[..CROWD - 1].iter().all(|word| word == "collapsed" || word == "hit"), "{words:?}");
    assert!(words.iter().any(|word| word == "collapsed"), "{words:?}");
}

#[tokio::test]
async fn all_read_along_while_the_body_is_still_arriving() {
    let backend = Backend::scripted(Script::each([halves()]));
    let lb = caching(&backend, "{}").await;
    let mut clients = crowd(&lb, 5, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == 5).await;
    backend.release();
    for client in &mut clients {
        assert!(read_head(client).await.starts_with("HTTP/1.1 200"));
        client.read_exactly(SOON).await;
    }
    clients.extend(crowd(&lb, 1, GET).await);
    let late = clients.last_mut().unwrap();
    read_head(late).await;
    late.read_exactly(SOON).await;
    backend.release();
    for client in &mut clients {
        client.read_exactly(2 * HALF - SOON).await;
    }
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn the_one_who_fetches_may_leave_without_harm_to_the_others() {
    let backend = Backend::scripted(Script::each([halves(), vec![Act::Reset]]));
    let lb = caching(&backend, "{}").await;
    let mut first = crowd(&lb, 1, GET).await.remove(0);
    backend.until_requests(1).await;
    let mut others = crowd(&lb, 5, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == 6).await;
    backend.release();
    read_head(&mut first).await;
    first.read_exactly(SOON).await;
    for other in &mut others {
        read_head(other).await;
        other.read_exactly(SOON).await;
    }
    drop(first);
    backend.release();
    for other in &mut others {
        other.read_exactly(2 * HALF - SOON).await;
    }
    assert_eq!(get(&lb, "/", "").await.body.len(), 2 * HALF);
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn the_one_who_fetches_may_leave_before_the_head_is_there() {
    let backend = Backend::scripted(Script::each([held(&[HEAD_OF_TEN, "0123456789"])]));
    let lb = caching(&backend, "{}").await;
    let first = crowd(&lb, 1, GET).await;
    backend.until_requests(1).await;
    let mut others = crowd(&lb, 5, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == 6).await;
    drop(first);
    lb.wait_until("the first shall be gone", |lb| lb.in_flight() <= 5).await;
    backend.release_all();
    for other in &mut others {
        assert_eq!(other.read_response().await.text(), "0123456789");
    }
    assert!(backend.requests() <= 2, "one of the others takes over: {}", backend.requests());
}

#[tokio::test]
async fn a_body_of_unknown_length_is_one_request_too_and_is_stored_when_it_has_ended() {
    let backend =
        Backend::scripted(Script::each([held(&[HEAD_OF_CHUNKS, "5\r\n01234\r\n", "5\r\n56789\r\n0\r\n\r\n"])]));
    let lb = caching(&backend, "{}").await;
    let mut clients = crowd(&lb, 10, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == 10).await;
    backend.release_all();
    for client in &mut clients {
        assert_eq!(client.read_response().await.text(), "0123456789");
    }
    assert_eq!(backend.requests(), 1);
    assert_eq!(get(&lb, "/", "").await.field("content-length"), Some("10"));
}

#[tokio::test]
async fn answers_that_may_not_be_stored_make_nobody_wait() {
    for fields in [
        &[("Cache-Control", "no-store")][..],
        &[("Cache-Control", "private")],
        &[("Cache-Control", "max-age=60"), ("Set-Cookie", "a=b")],
        &[("Cache-Control", "max-age=60"), ("Vary", "*")],
        &[],
    ] {
        let first = vec![Act::ReadBody, Act::Write(response(200, fields, "x"))];
        let rest = vec![Act::ReadBody, Act::Hold, Act::Write(response(200, fields, "x"))];
        let backend = Backend::scripted(Script::each([first, rest]));
        let lb = caching(&backend, "{ lock: 1h }").await;
        get(&lb, "/", "").await;
        let mut clients = crowd(&lb, CROWD, GET).await;
        // None is answered until all have reached the backend: whoever waited for another would wait for ever.
        backend.until_requests(1 + CROWD).await;
        backend.release_all();
        for client in &mut clients {
            assert_eq!(client.read_response().await.text(), "x", "{fields:?}");
        }
    }
}

#[tokio::test]
async fn the_first_crowd_for_what_may_not_be_stored_waits_for_one_answer_only() {
    let backend = Backend::scripted(Script::each([held(&[
        "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nContent-Length: 1\r\n\r\nx",
    ])]));
    let lb = caching(&backend, "{ lock: 1h }").await;
    let mut clients = crowd(&lb, CROWD, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == CROWD).await;
    backend.release();
    backend.until_requests(CROWD).await;
    backend.release_all();
    for client in &mut clients {
        assert_eq!(client.read_response().await.text(), "x");
    }
}

#[tokio::test]
async fn who_does_not_want_to_wait_asks_the_backend() {
    for lock in ["100ms", "none"] {
        let backend = Backend::scripted(Script::each([held(&[HEAD_OF_TEN, "0123456789"])]));
        let lb = caching(&backend, &format!("{{ lock: {lock} }}")).await;
        let mut clients = crowd(&lb, 3, GET).await;
        backend.until_requests(3).await;
        backend.release_all();
        for client in &mut clients {
            assert_eq!(client.read_response().await.text(), "0123456789", "{lock}");
        }
        assert_eq!(get(&lb, "/", "").await.field("age"), Some("0"), "one of them has been stored");
    }
}

/// Asks twice: the first answer breaks off, so the second request must reach the backend again.
async fn breaks_off(first: Vec<Act>) {
    let name = format!("{first:?}");
    let backend = Backend::scripted(Script::each([first, vec![Act::ReadBody, Act::Write(fresh("whole"))]]));
    let lb = Lb::with_backends([&backend]).yaml_route("cache: {}").yaml_route("retry: { attempts: 1 }").start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let got = client.try_read_to_end().await;
    if let Ok(got) = got {
        let text = String::from_utf8_lossy(&got);
        let is_whole = text.ends_with("0\r\n\r\n") || text.ends_with("0123456789");
        assert!(!is_whole, "{name}: {text}");
    }
    let second = get(&lb, "/", "").await;
    assert_eq!((second.status, second.text()), (200, "whole".into()), "{name}");
}

#[tokio::test]
async fn what_breaks_off_is_never_served_again() {
    for end in [Act::Close, Act::Reset] {
        let cut = |head: &str, part: &str| vec![Act::ReadBody, Act::Write(format!("{head}{part}").into()), end.clone()];
        breaks_off(cut(HEAD_OF_TEN, "01234")).await;
        breaks_off(cut(HEAD_OF_TEN, "")).await;
        breaks_off(cut(HEAD_OF_CHUNKS, "5\r\n01234\r\n")).await;
        breaks_off(cut(HEAD_OF_CHUNKS, "5\r\n012")).await;
        breaks_off(cut(HEAD_OF_CHUNKS, "")).await;
        breaks_off(cut(HEAD_OF_CHUNKS, "5\r\n01234\r\n0\r\n")).await;
        breaks_off(cut(HEAD_OF_CHUNKS, "zz\r\n01234\r\n")).await;
    }
}

#[tokio::test]
async fn more_than_was_announced_is_not_stored_with_it() {
    let long = [HEAD_OF_TEN.as_bytes(), b"0123456789HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"].concat();
    let backend = Backend::scripted(Script::each([
        vec![Act::ReadBody, Act::Write(long.into())],
        vec![Act::ReadBody, Act::Write(fresh("next"))],
    ]));
    let lb = caching(&backend, "{}").await;
    assert_eq!(get(&lb, "/", "").await.text(), "0123456789");
    let again = get(&lb, "/", "").await.text();
    assert!(again == "0123456789" || again == "next", "{again}");
    assert_eq!(get(&lb, "/other", "").await.text(), "next");
}

#[tokio::test]
async fn all_who_read_along_learn_that_it_broke_off() {
    let mut acts = halves();
    acts.truncate(3);
    acts.extend([Act::Hold, Act::Reset]);
    let backend = Backend::scripted(Script::each([acts, vec![Act::ReadBody, Act::Write(fresh("whole"))]]));
    let lb = caching(&backend, "{}").await;
    let mut clients = crowd(&lb, 5, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == 5).await;
    backend.release();
    for client in &mut clients {
        read_head(client).await;
        client.read_exactly(SOON).await;
    }
    backend.release();
    for client in &mut clients {
        let rest = client.try_read_to_end().await.unwrap_or_default();
        assert!(rest.len() <= HALF - SOON, "{}", rest.len());
    }
    assert_eq!(get(&lb, "/", "").await.text(), "whole");
}

#[tokio::test]
async fn what_is_too_large_is_passed_on_whole_and_not_stored() {
    const LENGTH: usize = 300_000;
    let body = "x".repeat(LENGTH);
    let with_length = response(200, &[("Cache-Control", "max-age=60")], &body);
    let in_chunks: Bytes = format!("{HEAD_OF_CHUNKS}{LENGTH:x}\r\n{body}\r\n0\r\n\r\n").into();
    for answer in [with_length, in_chunks] {
        let backend = backend_saying([answer]);
        let lb = Lb::with_backends([&backend])
            .yaml_route("cache: { lock: 1h }")
            .yaml_section("cache: { size: 8MiB, max_object: 64KiB }")
            .start()
            .await;
        for _ in 0..2 {
            assert_eq!(get(&lb, "/", "").await.body.len(), LENGTH);
        }
        assert_eq!(backend.requests(), 2);
        assert_eq!(words(&lb, 2).await, ["miss:too_large", "miss:too_large"]);
    }
}

#[tokio::test]
async fn what_has_turned_out_too_large_makes_nobody_wait() {
    let chunk = "x".repeat(100_000);
    let whole = format!("{HEAD_OF_CHUNKS}{:x}\r\n{chunk}\r\n0\r\n\r\n", chunk.len());
    let endless = format!("{HEAD_OF_CHUNKS}{:x}\r\n{chunk}\r\n", chunk.len());
    let first = vec![Act::ReadBody, Act::Write(whole.into())];
    let rest = vec![Act::ReadBody, Act::Write(endless.into()), Act::Hang];
    let backend = Backend::scripted(Script::each([first, rest]));
    let lb = Lb::with_backends([&backend])
        .yaml_route("cache: { lock: 1h }")
        .yaml_section("cache: { size: 8MiB, max_object: 64KiB }")
        .start()
        .await;
    get(&lb, "/", "").await;
    let _clients = crowd(&lb, CROWD, GET).await;
    backend.until_requests(1 + CROWD).await;
}

#[tokio::test]
async fn an_endless_body_lets_the_others_go_once_it_is_too_large() {
    let chunk = "x".repeat(100_000);
    let endless = format!("{HEAD_OF_CHUNKS}{:x}\r\n{chunk}\r\n", chunk.len());
    let backend =
        Backend::scripted(Script::each([vec![Act::ReadBody, Act::Hold, Act::Write(endless.into()), Act::Hang]]));
    let lb = Lb::with_backends([&backend])
        .yaml_route("cache: { lock: 1h }")
        .yaml_section("cache: { size: 8MiB, max_object: 64KiB }")
        .start()
        .await;
    let _clients = crowd(&lb, 10, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == 10).await;
    backend.release_all();
    backend.until_requests(10).await;
}

/// Stale from the beginning, and may serve for a minute while it is fetched anew.
fn stale(body: &str) -> Bytes {
    response(200, &[("Cache-Control", "max-age=5, stale-while-revalidate=60"), ("Age", "10")], body)
}

#[tokio::test]
async fn what_is_stale_is_served_at_once_and_fetched_anew_once() {
    let anew = vec![Act::ReadBody, Act::Hold, Act::Write(fresh("new"))];
    let backend = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(stale("old"))], anew]));
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    let mut clients = crowd(&lb, CROWD, GET).await;
    for client in &mut clients {
        assert_eq!(client.read_response().await.text(), "old");
    }
    backend.until_requests(2).await;
    backend.release_all();
    lb.until_idle().await;
    assert_eq!(get(&lb, "/", "").await.text(), "new");
    assert_eq!(backend.requests(), 2);
    let mut expected = vec!["stale"; CROWD];
    expected.insert(0, "miss");
    expected.push("hit");
    assert_eq!(words(&lb, CROWD + 2).await, expected);
}

#[tokio::test]
async fn what_is_stale_is_fetched_anew_for_http_2_and_tls_too() {
    let backend = backend_saying([stale("old"), fresh("new")]);
    let lb =
        Lb::with_backends([&backend]).yaml_route("cache: {}").yaml_route("match: { listener: secure }").start().await;
    let client = lb.h2().await;
    assert_eq!(client.get("/").await.body, "old");
    assert_eq!(client.get("/").await.body, "old");
    backend.until_requests(2).await;
    lb.until_idle().await;
    assert_eq!(client.get("/").await.body, "new");
    assert_eq!(backend.requests(), 2);
    let host = format!("localhost:{}", lb.address(1).port());
    assert!(backend.received().iter().all(|one| one.field("host") == Some(&host)), "{:?}", backend.received());
    assert_eq!(backend.received()[1].field("x-forwarded-proto"), Some("https"));
    assert_eq!(words(&lb, 3).await, ["miss", "stale", "hit"]);
}

#[tokio::test]
async fn one_who_would_rather_not_have_it_stale_waits() {
    let backend = backend_saying([stale("old"), fresh("new")]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    assert_eq!(get(&lb, "/", "Cache-Control: no-cache\r\n").await.text(), "new");
}

#[tokio::test]
async fn a_fetch_in_the_background_that_fails_leaves_what_is_stale() {
    let backend = backend_saying([stale("old"), response(503, &[], "no")]);
    let lb = caching(&backend, "{}").await;
    get(&lb, "/", "").await;
    for count in 2..4 {
        assert_eq!(get(&lb, "/", "").await.text(), "old");
        backend.until_requests(count).await;
        lb.until_idle().await;
    }
}

#[tokio::test]
async fn a_fetch_in_the_background_ends_when_its_time_is_over() {
    let backend = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(stale("old"))], vec![Act::Hang]]));
    let lb = Lb::with_backends([&backend]).yaml_route("cache: {}").yaml_route("timeout: 200ms").start().await;
    get(&lb, "/", "").await;
    assert_eq!(get(&lb, "/", "").await.text(), "old");
    backend.until_requests(2).await;
    lb.until_idle().await;
    assert_eq!(get(&lb, "/", "").await.text(), "old", "and the next begins anew");
    backend.until_requests(3).await;
}

#[tokio::test]
async fn what_is_stale_is_better_than_a_503_where_that_is_allowed() {
    let stale = |says: &str| response(200, &[("Cache-Control", says), ("Age", "10")], "old");
    for (says, route, status) in [
        ("max-age=5, stale-if-error=60", "cache: {}", 200),
        ("max-age=5", "cache: { stale_if_error: 1h }", 200),
        ("max-age=5, stale-if-error=2", "cache: {}", 503),
        ("max-age=5", "cache: {}", 503),
        ("max-age=5, must-revalidate", "cache: { stale_if_error: 1h }", 503),
    ] {
        let backend = backend_saying([stale(says), response(503, &[], "no")]);
        let lb = Lb::with_backends([&backend]).yaml_route(route).start().await;
        get(&lb, "/", "").await;
        let got = get(&lb, "/", "").await;
        assert_eq!(
            (got.status, got.text().as_str()),
            (status, if status == 200 { "old" } else { "no" }),
            "{says} {route}"
        );
        if status == 200 {
            assert_eq!(words(&lb, 2).await, ["miss", "stale"], "{says} {route}");
        }
    }
}

#[tokio::test]
async fn what_is_stale_is_served_for_a_while_when_nobody_answers() {
    let old = |says: &str, age: &str| response(200, &[("Cache-Control", says), ("Age", age)], "old");
    for (says, age, status) in [
        ("max-age=5", "7", 200),
        ("max-age=5", "30", 502),
        ("max-age=5, stale-if-error=60", "30", 200),
        ("max-age=5, must-revalidate", "7", 502),
        ("max-age=5, proxy-revalidate", "7", 502),
    ] {
        let backend = backend_saying([old(says, age)]);
        let lb = caching(&backend, "{}").await;
        get(&lb, "/", "").await;
        backend.stop().await;
        let got = get(&lb, "/", "").await;
        assert_eq!(got.status, status, "{says} at {age}");
    }
}

#[tokio::test]
async fn an_answer_to_one_who_leaves_early_is_no_ones_harm_in_chunks() {
    let backend = Backend::scripted(Script::each([
        held(&[HEAD_OF_CHUNKS, "5\r\n01234\r\n", "5\r\n56789\r\n0\r\n\r\n"]),
        vec![Act::ReadBody, Act::Write(fresh("0123456789"))],
    ]));
    let lb = caching(&backend, "{}").await;
    let mut first = crowd(&lb, 1, GET).await.remove(0);
    backend.until_requests(1).await;
    let mut others = crowd(&lb, 5, GET).await;
    lb.wait_until("all shall be there", |lb| lb.in_flight() == 6).await;
    backend.release();
    backend.release();
    read_head(&mut first).await;
    first.read_exactly(5).await;
    drop(first);
    backend.release_all();
    for other in &mut others {
        assert_eq!(other.read_response().await.text(), "0123456789");
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_is_no_answer_to_keep_from_http_2_either() {
    let backend = support::H2Backend::plain();
    let lb = Lb::with_urls([backend.url()])
        .yaml_upstream("protocol: http2")
        .yaml_route("cache: {}")
        .yaml_route("retry: { attempts: 1 }")
        .start()
        .await;
    for asked in 1..3 {
        let mut client = lb.raw().await;
        client.send("GET /half HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let got = client.try_read_to_end().await.unwrap_or_default();
        assert!(!got.ends_with(b"0\r\n\r\n"), "{got:?}");
        assert_eq!(backend.heads().len(), asked);
    }
}

#[tokio::test]
async fn posts_are_told_apart_by_their_bodies() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb = caching(&backend, "{ methods: [GET, POST], key: { body: 16B } }").await;
    let check = async |body: &str, asks: usize| {
        let before = backend.requests();
        let got = ask(&lb, "POST", "/", "", body).await;
        assert_eq!((got.status, backend.requests() - before), (200, asks), "{body}");
        if asks == 1 {
            assert_eq!(backend.received().last().unwrap().body.content, body);
        }
    };
    check("one", 1).await;
    check("one", 0).await;
    check("two", 1).await;
    check("", 1).await;
    check("", 0).await;
    check(&"x".repeat(17), 1).await;
    check(&"x".repeat(17), 1).await;
    check(&"y".repeat(100_000), 1).await;
    let before = backend.requests();
    for _ in 0..2 {
        ask(&lb, "GET", "/", "", "fat").await;
    }
    assert_eq!(backend.requests(), before + 2, "a GET with a body is for the backend");
}

#[tokio::test]
async fn a_body_that_is_part_of_the_key_may_come_slowly_and_may_be_waited_for() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb = caching(&backend, "{ methods: [GET, POST], key: { body: 16B } }").await;
    for asked in [1, 1] {
        let mut client = lb.raw().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
        let interim = client.read_response().await;
        assert_eq!(interim.status, 100);
        client.send("bo").await;
        client.send("dy").await;
        assert_eq!(client.read_response().await.text(), "x");
        assert_eq!(backend.requests(), asked);
    }
    let mut client = lb.raw().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.read_response().await.text(), "x");
    assert_eq!(backend.requests(), 1, "the same body in other pieces");
    assert_eq!(lb.h2().await.post("/", "body").await.status, 200);
}

#[tokio::test]
async fn a_body_that_never_comes_is_waited_for_as_long_as_any() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb = Lb::yaml(format!(
        "listeners: [{{ address: 127.0.0.1:0, timeouts: {{ body: 200ms }} }}]\nupstreams: {{ app: {{ backends: [\"{}\"], health_check: none }} }}\n\
         routes: [{{ upstream: app, cache: {{ methods: [GET, POST], key: {{ body: 16B }} }} }}]\n",
        backend.url()
    ))
    .start()
    .await;
    let mut client = lb.raw().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo").await;
    assert_eq!(client.read_response().await.status, 408);
    assert_eq!(lb.access_log(1).await[0]["reason"], "body_timeout");
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_reload_keeps_what_is_stored_and_a_smaller_size_holds_at_once() {
    let backend = backend(&[("Cache-Control", "max-age=60")], &"x".repeat(10_000));
    let with = |size: &str| {
        Lb::with_backends([&backend])
            .yaml_route("cache: {}")
            .yaml_section(&format!("cache: {{ size: {size}, max_object: 64KiB }}"))
    };
    let lb = with("8MiB").start().await;
    for number in 0..100 {
        get(&lb, &format!("/{number}"), "").await;
    }
    lb.reload(with("16MiB")).await.unwrap();
    get(&lb, "/99", "").await;
    assert_eq!(backend.requests(), 100, "it is still there");
    lb.reload(with("1MiB")).await.unwrap();
    for number in 0..100 {
        get(&lb, &format!("/{number}"), "").await;
    }
    assert!(backend.requests() > 100, "most of it is gone");
}

#[tokio::test]
async fn retries_come_before_what_is_stored() {
    let good = backend_saying([fresh("good")]);
    // It may even be stored, but not in the place of a good one.
    let bad = backend_saying([response(503, &[("Cache-Control", "max-age=60")], "bad")]);
    let lb = Lb::with_backends([&bad, &good]).yaml_route("cache: {}").start().await;
    all_of((0..10).map(|number| {
        let lb = &lb;
        async move {
            let target = format!("/{number}");
            assert_eq!(get(lb, &target, "").await.text(), "good");
            assert_eq!(get(lb, &target, "").await.text(), "good");
        }
    }))
    .await;
    assert_eq!(good.requests(), 10);
    wait_until("the bad one shall have been asked", || bad.requests() > 0).await;
}

#[tokio::test]
async fn a_session_of_one_client_is_no_ones_elses() {
    let backend = backend(&[("Cache-Control", "max-age=60")], "x");
    let lb =
        Lb::with_backends([&backend]).yaml_upstream("sticky: { cookie: at }").yaml_route("cache: {}").start().await;
    let first = get(&lb, "/", "").await;
    let second = get(&lb, "/", "").await;
    assert_eq!(backend.requests(), 1);
    assert!(first.field("set-cookie").is_some());
    assert_eq!(second.field("set-cookie"), None, "nobody has served it");
}

#[tokio::test]
async fn an_upgrade_has_nothing_to_do_with_the_store() {
    let backend = Backend::upgrading_echo();
    let lb = caching(&backend, "{ ttl: 60s }").await;
    for _ in 0..2 {
        let mut client = lb.raw().await;
        client.send(request("GET", "/", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "")).await;
        assert_eq!(client.read_response().await.status, 101);
        client.send("ping").await;
        assert_eq!(client.read_exactly(4).await, "ping");
    }
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn a_slow_first_client_slows_nobody_else() {
    const LENGTH: usize = 4 << 20;
    let head = format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {LENGTH}\r\n\r\n");
    let body = Bytes::from(vec![b'x'; LENGTH]);
    let backend = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(head.into()), Act::Write(body)]]));
    let lb = caching(&backend, "{}").await;
    // It reads nothing but the head, so the buffers between it and us are full after a while.
    let mut slow = crowd(&lb, 1, GET).await.remove(0);
    read_head(&mut slow).await;
    backend.until_requests(1).await;
    for _ in 0..3 {
        assert_eq!(get(&lb, "/", "").await.body.len(), LENGTH);
    }
    assert_eq!(backend.requests(), 1);
    slow.read_exactly(LENGTH).await;
}

#[tokio::test]
async fn what_is_stale_is_fetched_anew_whatever_fields_speak_of_a_body() {
    for (lines, after) in [
        ("Content-Type: text/plain\r\nX-Forwarded-For: 10.0.0.1\r\nAccept: */*\r\n", ""),
        ("Accept: */*\r\nContent-Length: 0\r\nX-Forwarded-For: 10.0.0.1\r\n", "Accept-Language: de\r\n"),
        ("Content-Encoding: identity\r\nAccept: */*\r\nX-One: 1\r\n", "X-Two: 2\r\n"),
    ] {
        let backend = backend_saying([stale("old"), fresh("new")]);
        let lb = caching(&backend, "{}").await;
        let lines = format!("{lines}{after}");
        get(&lb, "/", "").await;
        assert_eq!(get(&lb, "/", &lines).await.text(), "old", "{lines}");
        backend.until_requests(2).await;
        lb.until_idle().await;
        assert_eq!(get(&lb, "/", "").await.text(), "new", "{lines}");
        assert_eq!(words(&lb, 3).await, ["miss", "stale", "hit"], "{lines}");
    }
}

#[tokio::test]
async fn what_is_stored_of_a_post_is_not_made_a_condition_of_the_next() {
    let old = response(200, &[("Cache-Control", "max-age=5"), ("Age", "10"), ("ETag", "\"1\"")], "x");
    let backend = backend_saying([old.clone(), old]);
    let lb = caching(&backend, "{ methods: [GET, POST], key: { body: 16B } }").await;
    for _ in 0..2 {
        assert_eq!(ask(&lb, "POST", "/", "", "one").await.status, 200);
    }
    assert!(!backend.received()[1].text().to_lowercase().contains("if-none-match"));
}

#[tokio::test]
async fn what_was_not_storable_once_may_be_stored_later_where_requests_are_hedged_too() {
    let says = || backend_saying([response(200, &[("Cache-Control", "no-store")], "x"), fresh("x")]);
    let (one, two) = (says(), says());
    let lb = Lb::with_backends([&one, &two])
        .yaml_route("cache: {}")
        .yaml_route("retry: { hedge: { after: 5s } }")
        .start()
        .await;
    for _ in 0..6 {
        get(&lb, "/", "").await;
    }
    assert_eq!(words(&lb, 6).await[5], "hit");
}
