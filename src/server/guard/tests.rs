//! What a guard keeps between two heads, and when it says that one has begun.

use tokio::net::UnixStream;

use super::*;
use crate::server::listen::Accepted;
use crate::server::wire::Wire;

/// A guard that expects the first request, and its client.
fn guarded(min_rate: Option<NonZeroU64>) -> (Guard<Wire>, UnixStream) {
    let second = Duration::from_secs(1);
    let timeouts = ListenerTimeouts {
        handshake: second,
        header: second,
        body: second,
        idle: second,
        write: second,
        request: None,
    };
    let limits = ListenerLimits {
        header_size: 16 * 1024,
        headers: 20,
        requests_per_connection: 1000,
        h2_streams: 100,
        min_rate,
    };
    let rules = Arc::new(Rules::new(&timeouts, &limits, Arc::new(|_, refusal, _| panic!("{refusal:?}"))));
    let connection = Arc::new(Connection::example(([127, 0, 0, 1], 1).into(), 80));
    connection.turn.next();
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Guard::new(Wire::plain(Accepted::unix(ours)), connection, rules), theirs)
}

/// Reads the next head as Pingora does, whose hooks then know of it.
async fn read_head(guard: &mut Guard<Wire>) -> String {
    guard.first_bytes().await;
    assert!(guard.has_head().await);
    let mut head = String::new();
    while let Stage::Head(_) | Stage::Release(..) = guard.stage {
        let mut bytes = [0; 100];
        let count = guard.read(&mut bytes).await.unwrap();
        head.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    guard.connection.turn.answered_by_hooks.store(true, Relaxed);
    head
}

#[tokio::test]
async fn the_buffer_of_a_large_head_goes_with_it() {
    let (mut guard, mut client) = guarded(None);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "x".repeat(3000));
    client.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut guard).await, head);
    assert_eq!((guard.buffer.capacity(), guard.buffer.try_reclaim(1)), (0, false));
}

#[tokio::test]
async fn a_part_of_the_next_head_that_came_early_begins_it() {
    let (mut guard, mut client) = guarded(None);
    let head = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.write_all(format!("{head}\r\n{}", &head[..10]).as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut guard).await, head);
    assert_eq!(guard.connection.turn.head_began.load(Relaxed), 0, "all of it came at once");
    guard.connection.turn.next();
    guard.first_bytes().await;
    assert!(guard.connection.turn.head_began.load(Relaxed) > 0);
    client.write_all(&head.as_bytes()[10..]).await.unwrap();
    assert_eq!(read_head(&mut guard).await, head);
}

#[tokio::test(start_paused = true)]
async fn no_pace_is_asked_for_where_nobody_counts_what_arrives() {
    let (mut guard, _client) = guarded(NonZeroU64::new(1000));
    for _ in 0..10 {
        guard.reader.wait(|| 0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(guard.reader.takes_enough(0, Duration::from_secs(60)));
    }
}
