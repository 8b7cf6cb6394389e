//! HTTP/1: framing, limits and deadlines, as bytes on the wire.

use super::*;

#[tokio::test]
async fn a_plain_connection_is_served_and_kept_alive() {
    let door = Door::plain();
    let mut client = door.connect().await;
    for path in ["/first", "/second"] {
        let answer = client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await.response().await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(&format!("GET {path} 0 tls=none")), "{answer}");
        assert!(answer.contains("in_flight=1"), "{answer}");
    }
}
