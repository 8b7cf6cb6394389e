//! Who may connect, and what are they shown? Listeners and TLS through the front door.

use crate::support;

use std::sync::Arc;

use portcullis::answer::Refusal;
use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use support::front_door::Builder;
use support::tls::{self, Certificate, Offer};
use support::{Backend, Client, H2Client, Lb, Response, wait_until};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LAST_GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// One listener with these settings.
fn listener(settings: &str) -> String {
    format!("listeners:\n  - {{ address: 127.0.0.1:0, {settings} }}")
}

/// One listener with certificates from the files `NAME.pem` and `NAME.key`.
fn certificates(names: &[&str], more: &str) -> String {
    let files = names.iter().map(|name| format!("{{ cert: {name}.pem, key: {name}.key }}")).collect::<Vec<_>>();
    listener(&format!("tls: {{ certificates: [{}]{more} }}", files.join(", ")))
}

/// A folder with these certificates.
fn folder(certificates: &[(&str, &Certificate)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, certificate) in certificates {
        certificate.save(folder.path(), name);
    }
    folder
}

/// A front door that answers 200 itself.
fn answering(listeners: &str) -> Builder {
    let rest = "upstreams: { app: { backends: [127.0.0.1:1], health_check: none } }\nroutes:\n  - respond: { status: 200, body: ok }";
    Lb::yaml(format!("{rest}\n{listeners}\n"))
}

/// The leaf that a client who asks for `name` is shown.
async fn leaf(lb: &Lb, name: &str) -> Vec<u8> {
    Client::tls(lb.address(0), name).await.handshake.unwrap().certificate
}

/// Whether a client with this offer gets an answer.
async fn is_served(lb: &Lb, offer: &Offer<'_>) -> bool {
    let Ok(mut client) = Client::tls_with(lb.address(0), "localhost", offer).await else { return false };
    // In TLS 1.3 the client's side of the handshake ends before the server has judged its certificate.
    let _ = client.try_send(LAST_GET).await;
    client.try_read_to_end().await.is_ok_and(|bytes| bytes.starts_with(b"HTTP/1.1 200 "))
}

fn location(response: &Response) -> (u16, Option<&str>) {
    (response.status, response.field("location"))
}

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let one = Certificate::for_names(&["one.example", "both.example"]);
    let two = Certificate::for_names(&["two.example", "*.wild.example"]);
    let exact = Certificate::for_names(&["exact.wild.example", "both.example"]);
    let files = folder(&[("one", &one), ("two", &two), ("exact", &exact)]);
    let lb = answering(&certificates(&["one", "two", "exact"], "")).try_start_in(files).await.unwrap();

    for (name, shown) in [
        ("one.example", &one),
        ("two.example", &two),
        ("TWO.Example", &two),
        ("a.wild.example", &two),
        ("exact.wild.example", &exact),
        ("a.b.wild.example", &one),
        ("wild.example", &one),
        ("both.example", &one),
        ("nobody.example", &one),
        ("127.0.0.1", &one),
    ] {
        assert_eq!(leaf(&lb, name).await, shown.cert.to_vec(), "{name}");
    }
}

#[tokio::test]
async fn a_certificate_is_replaced_without_dropping_a_connection() {
    let (old, new) = (Certificate::for_names(&["localhost"]), Certificate::for_names(&["localhost"]));
    let lb = answering(&certificates(&["a"], "")).try_start_in(folder(&[("a", &old)])).await.unwrap();
    let mut early = Client::tls(lb.address(0), "localhost").await;
    assert_eq!(early.exchange(GET).await.status, 200);

    new.save(lb.folder(), "a");
    lb.front().reread_files();

    assert_eq!(leaf(&lb, "localhost").await, new.cert.to_vec());
    assert_eq!(early.exchange(GET).await.status, 200);
    assert_eq!(early.handshake.unwrap().certificate, old.cert.to_vec());
}

#[tokio::test]
async fn a_broken_certificate_file_keeps_the_old_certificate() {
    let (old, new) = (Certificate::for_names(&["localhost"]), Certificate::for_names(&["localhost"]));
    let lb = answering(&certificates(&["a"], "")).try_start_in(folder(&[("a", &old)])).await.unwrap();
    let (cert, key) = (lb.folder().join("a.pem"), lb.folder().join("a.key"));

    let half = &new.cert_pem[..new.cert_pem.len() / 2];
    // The last is what a renewal looks like between its two writes.
    for (cert_pem, key_pem) in
        [(half, &*old.key_pem), ("", &*old.key_pem), (&*old.cert_pem, ""), (&*new.cert_pem, &*old.key_pem)]
    {
        std::fs::write(&cert, cert_pem).unwrap();
        std::fs::write(&key, key_pem).unwrap();
        lb.front().reread_files();
        assert_eq!(leaf(&lb, "localhost").await, old.cert.to_vec(), "{cert_pem:?}");
    }
    std::fs::remove_file(&cert).unwrap();
    lb.front().reread_files();
    assert_eq!(leaf(&lb, "localhost").await, old.cert.to_vec());

    new.save(lb.folder(), "a");
    lb.front().reread_files();
    assert_eq!(leaf(&lb, "localhost").await, new.cert.to_vec());
}

#[tokio::test]
async fn a_reload_may_add_a_certificate_and_take_it_away() {
    let (one, two) = (Certificate::for_names(&["one.example"]), Certificate::for_names(&["two.example"]));
    let files = folder(&[("one", &one), ("two", &two)]);
    let lb = answering(&certificates(&["one"], "")).try_start_in(files).await.unwrap();
    let mut early = Client::tls(lb.address(0), "one.example").await;
    assert_eq!(leaf(&lb, "two.example").await, one.cert.to_vec());

    let reloaded = lb.reload(answering(&certificates(&["one", "two"], ""))).await.unwrap();
    assert_eq!(reloaded.needs_restart, [""; 0]);
    assert_eq!(leaf(&lb, "two.example").await, two.cert.to_vec());
    assert_eq!(leaf(&lb, "one.example").await, one.cert.to_vec());

    lb.reload(answering(&certificates(&["two"], ""))).await.unwrap();
    assert_eq!(leaf(&lb, "one.example").await, two.cert.to_vec());
    assert_eq!(early.exchange(GET).await.status, 200);
}

#[tokio::test]
async fn a_required_client_certificate_is_demanded_and_verified() {
    let (ours, theirs) = (Certificate::for_names(&["client"]), Certificate::for_names(&["stranger"]));
    let files = folder(&[("a", &Certificate::for_names(&["localhost"])), ("ca", &ours)]);
    let settings = certificates(&["a"], ", client_auth: { ca: ca.pem, mode: require }");
    let lb = answering(&settings).try_start_in(files).await.unwrap();

    assert!(is_served(&lb, &Offer { certificate: Some(&ours), ..Offer::default() }).await);
    assert!(!is_served(&lb, &Offer::default()).await);
    assert!(!is_served(&lb, &Offer { certificate: Some(&theirs), ..Offer::default() }).await);
    let old = Some(&[&rustls::version::TLS12][..]);
    assert!(is_served(&lb, &Offer { certificate: Some(&ours), versions: old, ..Offer::default() }).await);
    assert!(!is_served(&lb, &Offer { versions: old, ..Offer::default() }).await);
}

#[tokio::test]
async fn a_requested_client_certificate_may_be_left_out_but_not_be_a_bad_one() {
    let (ours, theirs) = (Certificate::for_names(&["client"]), Certificate::for_names(&["stranger"]));
    let files = folder(&[("a", &Certificate::for_names(&["localhost"])), ("ca", &ours)]);
    let settings = certificates(&["a"], ", client_auth: { ca: ca.pem, mode: request }");
    let lb = answering(&settings).try_start_in(files).await.unwrap();

    assert!(is_served(&lb, &Offer { certificate: Some(&ours), ..Offer::default() }).await);
    assert!(is_served(&lb, &Offer::default()).await);
    assert!(!is_served(&lb, &Offer { certificate: Some(&theirs), ..Offer::default() }).await);
}

#[tokio::test]
async fn an_authority_that_is_replaced_is_trusted_no_more() {
    let (old, new) = (Certificate::for_names(&["client"]), Certificate::for_names(&["client"]));
    let files = folder(&[("a", &Certificate::for_names(&["localhost"])), ("ca", &old)]);
    let settings = certificates(&["a"], ", client_auth: { ca: ca.pem, mode: require }");
    let lb = answering(&settings).try_start_in(files).await.unwrap();
    let (old, new_offer) =
        (Offer { certificate: Some(&old), ..Offer::default() }, Offer { certificate: Some(&new), ..Offer::default() });
    assert_eq!((is_served(&lb, &old).await, is_served(&lb, &new_offer).await), (true, false));

    new.save(lb.folder(), "ca");
    lb.front().reread_files();

    assert_eq!((is_served(&lb, &old).await, is_served(&lb, &new_offer).await), (false, true));
}

#[tokio::test]
async fn an_old_tls_version_is_spoken_only_where_it_is_allowed() {
    let old = Offer { versions: Some(&[&rustls::version::TLS12]), ..Offer::default() };
    let lb = answering(&listener("tls: { self_signed: [localhost] }")).start().await;
    let client = Client::tls_with(lb.address(0), "localhost", &old).await.unwrap();
    assert_eq!(client.handshake.unwrap().version, ProtocolVersion::TLSv1_2);

    let strict = answering(&listener("tls: { self_signed: [localhost], min_version: \"1.3\" }")).start().await;
    assert!(Client::tls_with(strict.address(0), "localhost", &old).await.is_err());
    let client = Client::tls(strict.address(0), "localhost").await;
    assert_eq!(client.handshake.unwrap().version, ProtocolVersion::TLSv1_3);
}

#[tokio::test]
async fn alpn_offers_http2_unless_it_is_switched_off() {
    let both = answering(&listener("tls: { self_signed: [localhost] }")).start().await;
    let off = answering(&listener("tls: { self_signed: [localhost] }, http2: false")).start().await;
    let offer = Offer { alpn: &["h2", "http/1.1"], ..Offer::default() };

    for (lb, alpn) in [(&both, "h2"), (&off, "http/1.1")] {
        let client = Client::tls_with(lb.address(0), "localhost", &offer).await.unwrap();
        assert_eq!(client.handshake.unwrap().alpn.as_deref(), Some(alpn));
    }
    assert!(is_served(&both, &Offer::default()).await, "a client without ALPN speaks HTTP/1.1");
    assert!(Client::tls_with(off.address(0), "localhost", &Offer { alpn: &["h2"], ..Offer::default() }).await.is_err());
}

#[tokio::test]
async fn http2_only_needs_no_tls_and_takes_no_http1() {
    let lb = answering(&listener("http2: only")).start().await;

    assert_eq!(H2Client::plain(lb.address(0)).await.get("/").await.status, 200);

    let mut old = lb.raw().await;
    old.send(GET).await;
    let rest = old.try_read_to_end().await.unwrap_or_default();
    assert!(!rest.starts_with(b"HTTP/1"), "{rest:?}");
}

#[tokio::test]
async fn a_client_resumes_its_session_also_after_certificates_were_read_again() {
    let certificate = Certificate::for_names(&["localhost"]);
    let lb = answering(&certificates(&["a"], "")).try_start_in(folder(&[("a", &certificate)])).await.unwrap();
    let client = tls::client(&Offer::default());
    assert!(!resumes(&lb, &client).await);
    assert!(resumes(&lb, &client).await);

    Certificate::for_names(&["localhost"]).save(lb.folder(), "a");
    lb.front().reread_files();

    assert!(resumes(&lb, &client).await);
}

/// Whether a connection with these settings, which remember sessions, goes on with an earlier session.
async fn resumes(lb: &Lb, client: &Arc<rustls::ClientConfig>) -> bool {
    let stream = TcpStream::connect(lb.address(0)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(client.clone()).connect(name, stream).await.unwrap();
    stream.write_all(LAST_GET.as_bytes()).await.unwrap();
    // Tickets come behind the handshake, with the first bytes that are read.
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
}

#[tokio::test]
async fn whoever_does_not_shake_hands_in_time_is_cut_off() {
    let lb = answering(&listener("tls: { self_signed: [localhost] }, timeouts: { handshake: 50ms }")).start().await;
    let mut silent = lb.raw().await;
    let mut slow = lb.raw().await;
    slow.send(b"\x16\x03\x01").await;

    silent.expect_closed().await;
    slow.expect_closed().await;

    wait_until("both places should be free again", || lb.front().connections() == 0).await;
    assert!(is_served(&lb, &Offer::default()).await);
}

#[tokio::test]
async fn http_on_the_https_port_does_no_harm() {
    let lb = answering(&listener("tls: { self_signed: [localhost] }")).start().await;
    let mut lost = lb.raw().await;
    lost.send(GET).await;
    let rest = lost.try_read_to_end().await.unwrap_or_default();
    assert!(!rest.starts_with(b"HTTP/"), "{rest:?}");
    assert!(is_served(&lb, &Offer::default()).await);
}

#[tokio::test]
async fn a_unix_socket_serves_and_is_gone_afterwards() {
    let lb = answering("listeners:\n  - { address: unix:front.sock }").start().await;
    let path = lb.folder().join("front.sock");
    let mut client = Client::unix(&path).await;

    assert_eq!(client.exchange(GET).await.body, "ok");
    assert_eq!(client.exchange(GET).await.body, "ok");

    let lines = lb.access_log(2).await;
    assert_eq!((&lines[0]["client"], &lines[0]["reason"]), (&serde_json::Value::Null, &"ok".into()));
    assert!(lb.shutdown().await);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_file_that_a_crash_left_behind_is_replaced_and_a_served_one_is_not() {
    let files = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(files.path().join("front.sock")).unwrap());
    let yaml = "listeners:\n  - { address: unix:front.sock }";
    let lb = answering(yaml).try_start_in(files).await.unwrap();
    let path = lb.folder().join("front.sock");
    assert_eq!(Client::unix(&path).await.exchange(GET).await.status, 200);

    let second = answering(&format!("listeners:\n  - {{ address: \"unix:{}\" }}", path.display())).try_start().await;
    let error = second.err().unwrap().to_string();
    assert!(error.starts_with("listeners[0].address: "), "{error}");
    assert_eq!(Client::unix(&path).await.exchange(GET).await.status, 200);
}

#[tokio::test]
async fn a_port_in_use_is_named_and_opens_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let yaml = format!("listeners:\n  - {{ address: unix:front.sock }}\n  - {{ address: {address} }}");

    let error = answering(&yaml).try_start().await.err().unwrap().to_string();

    assert!(error.starts_with("listeners[1].address: "), "{error}");
    assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
}

#[tokio::test]
async fn a_connection_over_the_total_is_closed_and_the_place_comes_back() {
    let yaml = format!("server: {{ max_connections: 2 }}\n{}", listener("http2: false"));
    let lb = answering(&yaml).start().await;
    let (mut first, mut second) = (lb.raw().await, lb.raw().await);
    assert_eq!((first.exchange(GET).await.status, second.exchange(GET).await.status), (200, 200));

    lb.raw().await.expect_closed().await;
    assert_eq!(first.exchange(GET).await.status, 200);

    drop(second);
    wait_until("the place should be free", || lb.front().connections() == 1).await;
    assert_eq!(lb.get("/").await.status, 200);
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_a_trusted_proxy_any_number() {
    let limited = listener("max_connections_per_address: 1");
    let lb = answering(&limited).start().await;
    let mut first = lb.raw().await;
    assert_eq!(first.exchange(GET).await.status, 200);
    lb.raw().await.expect_closed().await;
    drop(first);
    wait_until("the place should be free", || lb.front().connections() == 0).await;
    assert_eq!(lb.get("/").await.status, 200);

    let trusting = answering(&format!("server: {{ trusted_proxies: [127.0.0.0/8] }}\n{limited}")).start().await;
    let (mut first, mut second) = (trusting.raw().await, trusting.raw().await);
    assert_eq!((first.exchange(GET).await.status, second.exchange(GET).await.status), (200, 200));
}

#[tokio::test]
async fn a_redirect_to_https_keeps_path_and_query() {
    let both =
        format!("{}\n  - {{ address: 127.0.0.1:0, redirect_to_https: 8443 }}", listener("redirect_to_https: 443"));
    let lb = answering(&both).start().await;
    let ask = async |listener: usize, target: &str, host: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Client::tcp(lb.address(listener)).await.exchange(request).await
    };

    for (listener, target, host, wanted) in [
        (0, "/a/b%20c/?d=e&f=%2F", "app.example", "https://app.example/a/b%20c/?d=e&f=%2F"),
        (0, "/", "APP.example.:8080", "https://app.example/"),
        (1, "/?", "app.example:80", "https://app.example:8443/?"),
        (1, "/a/../b//c", "[::1]:80", "https://[::1]:8443/a/../b//c"),
    ] {
        assert_eq!(location(&ask(listener, target, host).await), (308, Some(wanted)));
    }
    let mut old = lb.raw().await;
    assert_eq!(old.exchange("GET /a HTTP/1.0\r\n\r\n").await.text(), Refusal::BadHost.body());
    let log = lb.access_log(5).await;
    assert!(log[..4].iter().all(|line| line["reason"] == "ok" && line["status"] == 308), "{log:#?}");
}

#[tokio::test]
async fn an_acme_challenge_is_served_before_the_redirect_and_nothing_else_is() {
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(files.path().join("acme/folder")).unwrap();
    std::fs::write(files.path().join("acme/to-ken_1"), "to-ken_1.thumb").unwrap();
    std::fs::write(files.path().join("secret"), "secret").unwrap();
    let listeners = listener("redirect_to_https: 443, acme_challenges: acme");
    let lb = answering(&listeners).try_start_in(files).await.unwrap();

    let found = lb.get("/.well-known/acme-challenge/to-ken_1?x=y").await;
    assert_eq!((found.status, found.text()), (200, "to-ken_1.thumb".to_owned()));
    for token in [
        "",
        "../secret",
        "..%2fsecret",
        "%2e%2e/secret",
        "folder",
        "folder/../to-ken_1",
        "missing",
        ".",
        "to-ken_1/",
        "to-ken_1%00",
    ] {
        let answer = lb.get(&format!("/.well-known/acme-challenge/{token}")).await;
        assert!(matches!(answer.status, 400 | 404), "{token}: {}", answer.text());
        assert!(!answer.text().contains("secret\n") && !answer.text().contains("thumb"), "{token}");
    }
    assert_eq!(location(&lb.get("/.well-known/acme").await), (308, Some("https://localhost/.well-known/acme")));
}

#[tokio::test]
async fn a_listener_with_challenges_and_no_redirect_routes_the_rest() {
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir(files.path().join("acme")).unwrap();
    std::fs::write(files.path().join("acme/token"), "token.thumb").unwrap();
    let lb = answering(&listener("acme_challenges: acme")).try_start_in(files).await.unwrap();

    assert_eq!(lb.get("/.well-known/acme-challenge/token").await.body, "token.thumb");
    assert_eq!(lb.get("/elsewhere").await.body, "ok");
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let settings = "timeouts: { idle: 500ms }";
    let listeners = format!(
        "{}\n  - {{ address: 127.0.0.1:0, tls: {{ self_signed: [localhost] }}, {settings} }}",
        listener(settings)
    );
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).yaml_section(&listeners).start().await;
    // At once after each other: a connection of HTTP/2 is idle from its handshake on.
    let h2 = lb.h2().await;
    assert_eq!(h2.get("/").await.status, 200);
    let (mut plain, mut secure) = (lb.raw().await, lb.tls().await);
    assert_eq!((plain.exchange(GET).await.status, secure.exchange(GET).await.status), (200, 200));

    plain.expect_closed().await;
    secure.expect_closed().await;
    // Whether the client saw the GOAWAY in time to close in order is up to the machine's load.
    let _ = h2.until_closed().await;

    assert_eq!(lb.access_log(3).await.len(), 3);
}

#[tokio::test]
async fn a_connection_ends_with_its_last_allowed_request() {
    let lb = answering(&listener("limits: { requests_per_connection: 2 }")).start().await;
    let mut client = lb.raw().await;

    let (first, second) = (client.exchange(GET).await, client.exchange(GET).await);

    assert_eq!((first.status, first.field("connection")), (200, Some("keep-alive")));
    assert_eq!((second.status, second.field("connection")), (200, Some("close")));
    client.expect_closed().await;
}
