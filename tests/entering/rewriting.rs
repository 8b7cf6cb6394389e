//! Which path does a backend get? Patterns and prefixes through the front door.

use crate::support;

use support::{Backend, Lb};

async fn rewriting(backend: &Backend, rewrite: &str) -> Lb {
    Lb::with_backends([backend]).yaml_route(&format!("rewrite: {rewrite}")).start().await
}

/// The target that the backend got last.
fn target(backend: &Backend) -> String {
    let received = backend.received().pop().unwrap();
    received.head.first_line.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_path_is_put_together_from_its_parts() {
    let backend = Backend::answering(200, "hi");
    let lb = rewriting(&backend, r#"{ pattern: "/users/([0-9]+)(?<rest>/.*)?", to: "/u/$1$${rest}" }"#).await;
    for (asked, sent) in [
        ("/users/17/posts?page=2&x=%2F", "/u/17/posts?page=2&x=%2F"),
        ("/users/17", "/u/17"),
        ("/users/17?", "/u/17?"),
        ("/./users//17/", "/u/17/"),
        ("/users/17/a%2Fb", "/u/17/a%2Fb"),
        ("/users/17/a%2fb/%7Eann", "/u/17/a%2Fb/~ann"),
        // What is not matched stays as it is, byte for byte.
        ("/users/ann/%7Eann//x", "/users/ann/%7Eann//x"),
        ("/other?a=/users/17", "/other?a=/users/17"),
    ] {
        assert_eq!(lb.get(asked).await.status, 200, "{asked}");
        assert_eq!(target(&backend), sent, "{asked}");
    }
    assert_eq!(lb.h2().await.get("/users/17/posts?a=b").await.status, 200);
    assert_eq!(target(&backend), "/u/17/posts?a=b");
}

#[tokio::test]
async fn no_path_escapes_from_where_it_is_put() {
    let backend = Backend::answering(200, "hi");
    let lb = rewriting(&backend, r#"{ pattern: "/([^/]*)(.*)", to: "/public/.$1$2" }"#).await;
    assert_eq!(lb.get("/hidden/x").await.status, 200);
    assert_eq!(target(&backend), "/public/.hidden/x");
    for asked in
        ["/", "/.", "/..", "/../x", "/./x", "/%2e/x", "/%2E%2e/x", "/..;/x", "/.;/x", "/..%2Fx", "/x/../../y", "//x"]
    {
        let status = lb.get(asked).await.status;
        // Either it is refused, or it is below where it belongs.
        let below = status == 200 && target(&backend).starts_with("/public/.") && !target(&backend).contains("/..");
        assert!(status == 400 || below, "{asked}: {status} {}", target(&backend));
    }
    assert_eq!(lb.get("/.x").await.status, 200, "this is a name");
    assert_eq!(target(&backend), "/public/..x");
    assert_eq!(lb.get("/./").await.status, 400, "/public/. leads elsewhere");
}

#[tokio::test]
async fn an_upgrade_is_rewritten_too() {
    let backend = Backend::upgrading_echo();
    let lb = rewriting(&backend, r#"{ pattern: "/ws/(.*)", to: "/$1" }"#).await;
    let mut client = lb.raw().await;
    client.send("GET /ws/chat?room=1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.read_response_to_head().await.status, 101);
    assert_eq!(target(&backend), "/chat?room=1");
}
