//! Does the cache keep its word on memory? The program itself, in a process of its own, under objects of all sizes
//! that come whole, in pieces, and not to their end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

mod support;

use std::net::SocketAddr;

use bytes::Bytes;
use support::{Act, Backend, Client, Portcullis, Script, all_of};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 8 * MIB;

/// So many different objects, by so many clients at once.
const OBJECTS: usize = 2000;
const CLIENTS: usize = 8;

/// Every so many, a client leaves after the first bytes of the answer.
const LEAVES: usize = 11;

/// Every so many, an object is larger than any that may be stored.
const TOO_LARGE: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_objects_takes_no_more_memory_than_the_cache_may_have() {
    stays_within_what_is_allowed("lru").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_does_it_where_what_proves_itself_stays() {
    stays_within_what_is_allowed("s3_fifo").await;
}

async fn stays_within_what_is_allowed(eviction: &str) {
    let answers = (0..OBJECTS).map(answer).chain([whole(1000)]).collect::<Vec<_>>();
    let streamed = answers.iter().flatten().map(written).sum::<u64>();
    let allowed = SIZE * 5 / 4 + 32 * MIB;
    assert!(streamed > 2 * allowed, "{streamed} bytes would fit whether the cache is bounded or not");
    let backend = Backend::scripted(Script::each_at_its_path(answers));
    let program = Portcullis::run(&file(&backend, eviction));
    let address = program.line_with("listening on ").await.rsplit(' ').next().unwrap().parse().unwrap();
    let before = program.memory("VmRSS");

    all_of((0..CLIENTS).map(|client| ask(address, client))).await;

    let grown = program.memory("VmHWM").saturating_sub(before);
    assert!(grown <= allowed, "it grew by {grown} bytes at its highest; {allowed} are allowed");
    let asked = backend.requests();
    for _ in 0..2 {
        assert_eq!(Client::tcp(address).await.exchange(get("/last", "")).await.status, 200);
    }
    assert_eq!(backend.requests(), asked + 1, "after all that, what may be stored still is");
}

/// One client's share of the objects, each on a connection of its own, as many of them end in the middle.
async fn ask(address: SocketAddr, client: usize) {
    for object in (client..OBJECTS).step_by(CLIENTS) {
        let mut connection = Client::tcp(address).await;
        connection.send(get(&format!("/{object}"), "Connection: close\r\n")).await;
        // One that breaks off may do so before its first byte has left.
        if object % LEAVES == 0 && object % 5 < 3 {
            assert_eq!(connection.read_exactly(9).await, "HTTP/1.1 ");
            continue;
        }
        // An error is what becomes of a body that does not reach its end; or 502, if that is known early enough.
        let received = connection.try_read_to_end().await.unwrap_or_default();
        let status = received.get(9..12).unwrap_or_default();
        assert!(matches!(status, b"" | b"200" | b"502"), "{:?}", String::from_utf8_lossy(status));
    }
}

/// Whole, in chunks, or cut off in the middle of either; now and then far too large.
fn answer(object: usize) -> Vec<Act> {
    let size = if object.is_multiple_of(TOO_LARGE) { 3 << 20 } else { size(object) };
    match object % 5 {
        0 | 1 => whole(size),
        2 => in_chunks(size, true),
        3 => {
            let mut cut = in_chunks(size, false);
            cut.push(Act::Close);
            cut
        }
        _ => vec![Act::ReadBody, Act::Write(head(size)), Act::Write(filled(size / 2)), Act::Close],
    }
}

/// From 100 bytes to 256 KiB, small ones as often as large ones, without a pattern and the same in every run.
fn size(object: usize) -> usize {
    let mixed = (object as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let doublings = mixed % 12;
    ((100 << doublings) + (mixed as usize >> 4) % (100 << doublings)).min(256 << 10)
}

fn whole(size: usize) -> Vec<Act> {
    vec![Act::ReadBody, Act::Write(head(size)), Act::Write(filled(size))]
}

fn in_chunks(size: usize, to_the_end: bool) -> Vec<Act> {
    let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut acts = vec![Act::ReadBody, Act::Write(head.into())];
    for start in (0..size).step_by(7000) {
        let chunk = filled(7000.min(size - start));
        acts.push(Act::Write([format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat().into()));
    }
    if to_the_end {
        acts.push(Act::Write("0\r\n\r\n".into()));
    }
    acts
}

fn head(length: usize) -> Bytes {
    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {length}\r\n\r\n").into()
}

fn filled(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

fn written(act: &Act) -> u64 {
    if let Act::Write(bytes) = act { bytes.len() as u64 } else { 0 }
}

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// A backend that lets go in the middle is here no reason to avoid it, and none to ask again.
fn file(backend: &Backend, eviction: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\ncache: {{ size: 8MiB, max_object: 1MiB, eviction: {eviction} }}\n\
         admin: {{ address: none }}\nlog: {{ access: none, dashboard: none }}\nupstreams:\n  app:\n    \
         backends: [\"{}\"]\n    health_check: none\n    passive_health: none\n\
         routes: [{{ upstream: app, cache: {{}}, retry: {{ attempts: 1 }} }}]\n",
        backend.url()
    )
}
