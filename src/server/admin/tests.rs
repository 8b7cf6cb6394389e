//! Tests of the admin address, byte for byte.

use std::net::SocketAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::operator::Wish;
use super::*;
use crate::config::{Address, Secret};
use crate::server::listen::{bind, bind_private};
use crate::server::watching::{Listener, News};

struct Admin {
    address: SocketAddr,
    readiness: Arc<Mutex<Readiness>>,
    stop: watch::Sender<bool>,
    done: tokio::task::JoinHandle<()>,
}

/// Grants everything, and says what was wanted; the first two may listen.
struct Granting {
    token: Option<Secret>,
    news: tokio::sync::broadcast::Sender<News>,
}

#[async_trait]
impl Operator for Granting {
    fn token(&self) -> Option<Secret> {
        self.token.clone()
    }

    fn listen(&self) -> Option<Listener> {
        (self.news.receiver_count() < 2).then(|| Listener { first: self.told_so_far(), news: self.news.subscribe() })
    }

    fn told_so_far(&self) -> News {
        News { event: "state", data: "{}".into() }
    }

    async fn grant(&self, wish: Wish, who: &str) -> Reply {
        Reply::of("200 OK", &serde_json::json!(format!("{who}: {wish:?}")))
    }
}

fn asked_for(ready: Ready) -> Asked {
    let cache = crate::cache::Cache::new(&crate::config::CacheStore::default(), || false);
    let (news, _) = tokio::sync::broadcast::channel(2);
    let operator = Arc::new(Granting { token: None, news });
    Asked { ready, operator, cache, metrics: Arc::new(|| "# a page\n".to_owned()) }
}

async fn admin() -> Admin {
    let listener = bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let Address::Tcp(address) = *listener.local_address() else { unreachable!("asked for TCP") };
    let readiness = Arc::new(Mutex::new(Readiness::Ready));
    let asked = readiness.clone();
    let (stop, stopped) = watch::channel(false);
    let done = tokio::spawn(serve(listener, asked_for(Arc::new(move || asked.lock().unwrap().clone())), stopped));
    Admin { address, readiness, stop, done }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    answer
}

impl Admin {
    async fn ask(&self, request: &str) -> String {
        exchange(TcpStream::connect(self.address).await.unwrap(), request).await
    }

    async fn status(&self, request: &str) -> String {
        self.ask(request).await.split(' ').nth(1).unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn healthz_says_that_we_live() {
    let answer = admin().await.ask("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n\
                    Cache-Control: no-store\r\nConnection: close\r\n\r\nalive\n";
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn readyz_says_no_with_a_reason() {
    let admin = admin().await;
    assert_eq!(admin.status("GET /readyz HTTP/1.1\r\n\r\n").await, "200");
    *admin.readiness.lock().unwrap() = Readiness::NotReady("upstream app is PENDING".into());
    let answer = admin.ask("GET /readyz?verbose HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot ready: upstream app is PENDING\n"), "{answer}");
}

#[tokio::test]
async fn head_gets_the_length_but_no_body() {
    let answer = admin().await.ask("HEAD /healthz HTTP/1.1\r\n\r\n").await;
    assert!(answer.contains("Content-Length: 6\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn everything_else_is_refused() {
    let admin = admin().await;
    assert_eq!(admin.status("GET /nothing HTTP/1.1\r\n\r\n").await, "404");
    assert_eq!(admin.status("POST /nothing HTTP/1.1\r\n\r\n").await, "404");
    let answer = admin.ask("POST /healthz HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    for malformed in
        ["\r\n\r\n", "GET /healthz\r\n\r\n", "GET /healthz HTTP/2.0\r\n\r\n", "GET  /healthz HTTP/1.1\r\n\r\n"]
    {
        assert_eq!(admin.status(malformed).await, "400", "{malformed:?}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let admin = admin().await;
    assert_eq!(admin.status(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(9000))).await, "431");
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_refused_after_the_deadline() {
    let (mut client, server) = tokio::io::duplex(1024);
    let ready: Ready = Arc::new(|| Readiness::Ready);
    let started = tokio::time::Instant::now();
    let ours = async {
        client.write_all(b"GET /healthz HT").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        drop(client);
        answer
    };
    let asked = asked_for(ready);
    let seldom = Seldom::default();
    let (answer, _) = tokio::join!(ours, converse(server, From::default(), &asked, &seldom));
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(started.elapsed(), DEADLINE);
}

#[tokio::test]
async fn silent_connections_do_not_keep_the_answer_from_others() {
    let admin = admin().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS - 1 {
        silent.push(TcpStream::connect(admin.address).await.unwrap());
    }
    assert_eq!(admin.status("GET /healthz HTTP/1.1\r\n\r\n").await, "200");
}

#[tokio::test]
async fn it_ends_when_told_even_with_connections_open() {
    let admin = admin().await;
    let _open = TcpStream::connect(admin.address).await.unwrap();
    admin.stop.send(true).unwrap();
    timeout(Duration::from_secs(10), admin.done).await.expect("an end").unwrap();
}

#[tokio::test]
async fn an_abandoned_unix_socket_is_replaced_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(bind(&Address::Unix(path.clone())).unwrap());
    let listener = bind(&Address::Unix(path.clone())).expect("nobody listens there any more");
    assert!(bind(&Address::Unix(path.clone())).is_err(), "somebody listens there");

    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, asked_for(Arc::new(|| Readiness::Ready)), stopped));
    let answer = exchange(UnixStream::connect(&path).await.unwrap(), "GET /readyz HTTP/1.1\r\n\r\n").await;
    assert!(answer.ends_with("ready\n"), "{answer}");

    let file = dir.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    assert!(bind(&Address::Unix(file.clone())).is_err());
    assert_eq!(std::fs::read_to_string(file).unwrap(), "data");
}

#[tokio::test]
async fn a_backend_is_answered_in_json_and_its_body_is_bounded() {
    let admin = admin().await;
    let body = r#"{"weight": 3}"#;
    let put = format!("PUT /upstreams/app/backends/10.0.0.1:80 HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    let answer = admin.ask(&format!("{put}{body}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nContent-Type: application/json\r\n"), "{answer}");
    assert!(answer.contains("10.0.0.1:80") && answer.contains("weight"), "{answer}");

    let huge = "PUT /upstreams/app/backends/a:80 HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n";
    assert_eq!(admin.status(huge).await, "413");
    let page = "DELETE /upstreams/app/backends/a:80 HTTP/1.1\r\nOrigin: http://a.b\r\n\r\n";
    assert_eq!(admin.status(page).await, "403");
    assert_eq!(admin.status("PUT /upstreams/app HTTP/1.1\r\n\r\n").await, "404");
}

#[tokio::test]
async fn the_cache_is_purged_by_post_and_by_nobody_s_page() {
    let admin = admin().await;
    let answer = admin.ask("POST /cache/purge?all=true HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"purged\":0}\n"), "{answer}");
    let answer = admin.ask("GET /cache/purge?all=true HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nAllow: POST\r\n"), "{answer}");
    for (request, status) in [
        ("POST /cache/purge HTTP/1.1\r\n\r\n", "400"),
        ("POST /cache/purge?prefix= HTTP/1.1\r\n\r\n", "400"),
        ("POST /cache/purge?all=true HTTP/1.1\r\nOrigin: http://a.b\r\n\r\n", "403"),
        ("POST /cache/purge?all=true HTTP/1.1\r\nHost: a.b\r\n\r\n", "403"),
        ("POST /cache HTTP/1.1\r\n\r\n", "405"),
        ("GET /cache HTTP/1.1\r\nHost: a.b\r\n\r\n", "403"),
        ("GET /cache/x HTTP/1.1\r\n\r\n", "404"),
        ("GET /cached HTTP/1.1\r\n\r\n", "404"),
    ] {
        assert_eq!(admin.status(request).await, status, "{request}");
    }
    let answer = admin.ask("GET /cache HTTP/1.1\r\n\r\n").await;
    assert!(answer.contains("\"hit_ratio\":null") && answer.contains("\"objects\":0"), "{answer}");
}

#[tokio::test]
async fn every_problem_has_a_help() {
    let admin = admin().await;
    for request in [
        "GET /nothing HTTP/1.1\r\n\r\n",
        "POST /status.json HTTP/1.1\r\n\r\n",
        "GET /status.json HTTP/1.1\r\nHost: a.b\r\n\r\n",
        "POST /upstreams/%f/backends HTTP/1.1\r\n\r\n",
        "PUT /log/level HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
        "POST /cache/purge HTTP/1.1\r\n\r\n",
    ] {
        let answer = admin.ask(request).await;
        assert!(answer.contains("\r\nContent-Type: application/problem+json\r\n"), "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(body["help"].as_str().is_some_and(|help| !help.is_empty()), "{body}");
        assert_eq!(body["status"].to_string(), answer.split(' ').nth(1).unwrap());
    }
}

#[tokio::test]
async fn the_page_comes_with_a_policy_that_allows_nothing_from_elsewhere() {
    let admin = admin().await;
    for path in ["/", "/page.css", "/page.js", "/rows.js", "/theme.js", "/icon.svg"] {
        let answer = admin.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer:.200}");
        let policy = answer.lines().find_map(|line| line.strip_prefix("Content-Security-Policy: ")).unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(!answer.contains("Access-Control-"), "{path}");
    }
}

#[tokio::test]
async fn a_token_is_wanted_for_facts_and_the_challenge_says_so() {
    let listener = bind(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let Address::Tcp(address) = *listener.local_address() else { unreachable!("asked for TCP") };
    let (news, _) = tokio::sync::broadcast::channel(2);
    let operator = Arc::new(Granting { token: Some(Secret::new(b"0123456789abcdef")), news });
    let asked = Asked { operator, ..asked_for(Arc::new(|| Readiness::Ready)) };
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, asked, stopped));
    let ask = async |request: &str| exchange(TcpStream::connect(address).await.unwrap(), request).await;
    for open in ["/healthz", "/readyz", "/", "/page.js"] {
        let answer = ask(&format!("GET {open} HTTP/1.1\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{open}: {answer:.100}");
    }
    for fact in ["/status.json", "/events", "/config", "/openapi.json", "/cache", "/nothing", "/metrics"] {
        let answer = ask(&format!("GET {fact} HTTP/1.1\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{fact}: {answer:.100}");
        assert!(answer.contains("\r\nWWW-Authenticate: Bearer realm=\"portcullis\"\r\n"), "{answer}");
    }
    let answer = ask("GET /status.json HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(", with the token: Status"), "{answer}");
}

#[tokio::test]
async fn listeners_are_told_everything_first_and_are_bounded() {
    let admin = admin().await;
    let open = async || {
        let mut stream = TcpStream::connect(admin.address).await.unwrap();
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut heard = String::new();
        while !heard.contains("\r\n\r\n") || !heard.ends_with("\n\n") && heard.contains("text/event-stream") {
            let mut bytes = [0; 1024];
            let read = timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.unwrap().unwrap();
            heard.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        (heard, stream)
    };
    let (first, _kept) = open().await;
    assert!(first.ends_with("\r\n\r\nevent: state\ndata: {}\n\n"), "{first}");
    let (_, _second) = open().await;
    let (third, _) = open().await;
    assert!(third.starts_with("HTTP/1.1 503 "), "{third}");
    admin.stop.send(true).unwrap();
    timeout(Duration::from_secs(10), admin.done).await.expect("an end, though two listen").unwrap();
}

#[tokio::test]
async fn the_socket_of_operators_is_for_us_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let listener = bind_private(&Address::Unix(path.clone())).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (_stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, asked_for(Arc::new(|| Readiness::Ready)), stopped));
    let request = "POST /reload HTTP/1.1\r\n\r\n";
    let answer = exchange(UnixStream::connect(&path).await.unwrap(), request).await;
    assert!(answer.contains("user ") && answer.contains(" on the socket: Reload"), "{answer}");
}
