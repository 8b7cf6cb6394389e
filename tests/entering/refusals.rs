//! What may be wrong with a request, and what is said about it? Every refusal that hooks can give, through the front
//! door: its status, its words, its line in the access log, and that nothing of it stays behind.

use crate::support;

use portcullis::answer::Refusal;
use serde_json::Value;
use support::backend::response;
use support::client::H2Response;
use support::{Act, Backend, Client, Lb, Response, Script, wait_until};

/// Panics unless this is the whole refusal and tells nothing of the inside.
#[track_caller]
fn assert_refused(answer: &Response, refusal: Refusal, what: &str) {
    assert_eq!((answer.status, answer.text()), (refusal.status().as_u16(), refusal.body()), "{what}");
    assert_eq!(answer.field("proxy-status"), Some(refusal.proxy_status().as_str()), "{what}");
    assert_eq!(answer.fields("content-length"), [refusal.body().len().to_string()], "{what}");
    // But for the reason, which is a word of ours.
    let raw = String::from_utf8_lossy(&answer.raw).replace(&refusal.proxy_status(), "").to_lowercase();
    for word in ["127.0.0.1", "pingora", "backend", "upstream", "error_", ".rs"] {
        assert!(!raw.contains(word), "{what} tells {word:?}: {raw}");
    }
}

#[track_caller]
fn assert_refused_on_h2(answer: &H2Response, refusal: Refusal, what: &str) {
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!((answer.status, body), (refusal.status(), refusal.body()), "{what}");
    assert_eq!(answer.field("proxy-status"), Some(refusal.proxy_status().as_str()), "{what}");
}

/// Panics unless each line says so, in order: one line a request, with its status and its reason.
#[track_caller]
fn assert_logged(log: &[Value], refusals: &[Refusal]) {
    let logged = log.iter().map(|line| (line["status"].as_u64(), line["reason"].as_str())).collect::<Vec<_>>();
    let wanted = refusals.iter().map(|it| (Some(u64::from(it.status().as_u16())), Some(it.label())));
    assert_eq!(logged, wanted.collect::<Vec<_>>());
}

/// Sends each request on a connection of its own, and expects its refusal, its log line, and no trace beyond.
async fn refuse_each(lb: &Lb, requests: &[(String, Refusal)]) {
    for (request, refusal) in requests {
        assert_refused(&lb.send(request).await, *refusal, &format!("{:?}", &request[..request.len().min(80)]));
    }
    let log = lb.access_log(requests.len()).await;
    assert_logged(&log, &requests.iter().map(|(_, refusal)| *refusal).collect::<Vec<_>>());
    lb.until_idle().await;
}

fn errors(lb: &Lb) -> u64 {
    lb.upstream("app").members()[0].backend.reading().errors
}

fn attempts(line: &Value) -> Vec<&str> {
    line["attempts"].as_array().unwrap().iter().map(|attempt| attempt["outcome"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_request_without_just_one_good_host_is_refused() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let bad = [
        "",
        "Host:\r\n",
        "Host:  \r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: a,b\r\n",
        "Host: a, a\r\n",
        "Host: u@a\r\n",
        "Host: a:b\r\n",
        "Host: a:99999\r\n",
        "Host: [::1\r\n",
        "Host: a..b\r\n",
        "Host: caf\u{e9}\r\n",
        "Host: a%2fb\r\n",
        "Host: http://a\r\n",
        "Host: a?b\r\n",
    ];

    // Two fields, or a user, make the whole head malformed to Pingora's parser, before anyone looks for a host.
    let two = |host: &str| host.matches("Host").count() > 1 || host.contains('@');
    let refusal = |host: &str| if two(host) { Refusal::MalformedRequest } else { Refusal::BadHost };
    let requests = bad.map(|host| (format!("GET / HTTP/1.1\r\n{host}\r\n"), refusal(host)));
    refuse_each(&lb, &requests).await;

    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn an_absolute_target_that_contradicts_the_host_is_refused() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;

    for request in [
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
    ] {
        assert_eq!(lb.send(request).await.status, 400, "{request}");
    }

    assert_eq!(backend.requests(), 0);
    assert!(lb.access_log(3).await.iter().all(|line| line["status"] == 400));
    lb.until_idle().await;
}

#[tokio::test]
async fn targets_methods_and_expectations_that_nobody_serves_are_refused() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let with = |line: &str, fields: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let get = |target: &str, refusal| (with(&format!("GET {target}"), ""), refusal);
    let requests = [
        get("*", Refusal::BadTarget),
        get("/a\\b", Refusal::BadTarget),
        get("/%", Refusal::BadTarget),
        get("/%zz", Refusal::BadTarget),
        get("/%00", Refusal::BadTarget),
        get("/..", Refusal::BadTarget),
        get("/a/%2e%2e/%2e%2e/b", Refusal::BadTarget),
        get(&format!("/{}", "a".repeat(20_000)), Refusal::TargetTooLong),
        (with("CONNECT a:443", ""), Refusal::MethodNotSupported),
        (with(&format!("{} /", "A".repeat(33)), ""), Refusal::MethodNotSupported),
        (with("PUT /", "Expect: 200-ok\r\nContent-Length: 0\r\n"), Refusal::UnknownExpectation),
        (with("PUT /", "Expect: 100-continue, other\r\nContent-Length: 3\r\n"), Refusal::UnknownExpectation),
    ];

    refuse_each(&lb, &requests).await;

    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_request_that_no_route_wants_is_told_so_and_the_connection_lives_on() {
    let backend = Backend::answering(200, "found");
    let lb = Lb::with_backends([&backend]).yaml_route("match: { path: /here/* }").start().await;
    let mut client = lb.raw().await;

    let answer = client.exchange("GET /there HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_refused(&answer, Refusal::NoRoute, "GET /there");
    assert_eq!(client.exchange("GET /here HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "found");

    let log = lb.access_log(2).await;
    assert_logged(&log[..1], &[Refusal::NoRoute]);
    assert_eq!((&log[0]["route"], &log[1]["reason"]), (&Value::Null, &"ok".into()));
}

#[tokio::test]
async fn a_refused_upload_is_never_taken_for_the_next_request() {
    let lb = Lb::with_urls(["127.0.0.1:1".to_owned()]).yaml_route("match: { path: /here }").start().await;
    let smuggled = "GET /here HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = lb.raw().await;

    client
        .send(format!("POST /there HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len()))
        .await;
    let answer = client.read_response().await;

    assert_refused(&answer, Refusal::NoRoute, "POST /there");
    assert_eq!(answer.field("connection"), Some("close"));
    client.expect_closed().await;
    assert_logged(&lb.access_log(1).await, &[Refusal::NoRoute]);
}

#[tokio::test]
async fn a_head_request_is_refused_without_a_body() {
    let lb = Lb::with_urls(["127.0.0.1:1".to_owned()]).yaml_route("match: { path: /here }").start().await;
    let mut client = lb.raw().await;

    for _ in 0..2 {
        client.send("HEAD /there HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.read_response_to_head().await;
        assert_eq!(answer.status, 404);
        assert_eq!(answer.fields("content-length"), [Refusal::NoRoute.body().len().to_string()]);
    }

    assert_logged(&lb.access_log(2).await, &[Refusal::NoRoute, Refusal::NoRoute]);
}

#[tokio::test]
async fn an_upstream_that_takes_no_requests_is_unavailable() {
    let backend = Backend::answering(200, "");
    let one = format!("backends: [{{ url: {}, weight: 0 }}], health_check: none", backend.url());
    let lb = Lb::yaml(format!("upstreams: {{ app: {{ {one} }} }}\nroutes:\n  - upstream: app\n")).start().await;

    assert_refused(&lb.get("/").await, Refusal::NoBackend, "GET /");
    assert_refused_on_h2(&lb.h2().await.get("/").await, Refusal::NoBackend, "GET / over HTTP/2");

    let log = lb.access_log(2).await;
    assert_logged(&log, &[Refusal::NoBackend; 2]);
    assert!(log.iter().all(|line| attempts(line).is_empty() && line["backend"].is_null()), "{log:#?}");
    lb.until_idle().await;
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_is_sent() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_route("body_limit: 10B").start().await;
    let mut client = lb.raw().await;

    let answer =
        client.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n").await;

    assert_refused(&answer, Refusal::BodyTooLarge, "POST");
    assert_eq!(answer.field("connection"), Some("close"));
    client.expect_closed().await;
    assert_eq!(lb.post("/", "ten bytes.").await.status, 200);
    assert_eq!(backend.connections(), 1);
    assert_logged(&lb.access_log(2).await[..1], &[Refusal::BodyTooLarge]);
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused_and_the_backend_is_not_blamed() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_route("body_limit: 10B").start().await;
    let chunks = "6\r\nhello \r\n6\r\nworld!\r\n0\r\n\r\n";

    let answer = lb.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;
    let client = lb.h2().await;
    let over_h2 = client.request(client.build("POST", "/"), &["hello ", "world!"]).await.unwrap();

    assert_refused(&answer, Refusal::BodyTooLarge, "chunked");
    assert_refused_on_h2(&over_h2, Refusal::BodyTooLarge, "HTTP/2");
    let log = lb.access_log(2).await;
    assert_logged(&log, &[Refusal::BodyTooLarge; 2]);
    lb.until_idle().await;
    assert_eq!(errors(&lb), 0);
}

#[tokio::test]
async fn malformed_chunks_are_refused_and_the_backend_is_not_blamed() {
    let bad = [
        "xyz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
    ];
    for chunks in bad {
        let backend = Backend::answering(200, "");
        let lb = Lb::with_backends([&backend]).start().await;

        let answer =
            lb.send(&format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")).await;

        assert_refused(&answer, Refusal::MalformedBody, &format!("{chunks:?}"));
        assert_logged(&lb.access_log(1).await, &[Refusal::MalformedBody]);
        lb.until_idle().await;
        assert_eq!(errors(&lb), 0, "{chunks:?}");
        assert!(backend.received().iter().all(|it| it.body.raw.is_empty()), "{chunks:?} was taken for a whole body");
    }
}

const TIMEOUTS: &str = "listeners:\n  - { address: 127.0.0.1:0, timeouts: { body: 100ms } }\n  \
    - { address: 127.0.0.1:0, timeouts: { body: 100ms }, tls: { self_signed: [localhost] } }";

#[tokio::test]
async fn a_stalled_upload_times_out_and_the_backend_is_not_blamed() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_section(TIMEOUTS).start().await;

    for body in
        ["Content-Length: 10\r\n\r\nhello", "Content-Length: 10\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"]
    {
        let mut client = lb.raw().await;
        let answer = client.exchange(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}")).await;
        assert_refused(&answer, Refusal::BodyTimeout, body);
        assert_eq!(answer.field("connection"), Some("close"), "{body}");
        client.expect_closed().await;
    }

    let log = lb.access_log(3).await;
    assert_logged(&log, &[Refusal::BodyTimeout; 3]);
    assert!(log.iter().all(|line| attempts(line) == ["body_timeout"]), "{log:#?}");
    lb.until_idle().await;
    assert_eq!(errors(&lb), 0);
}

#[tokio::test]
async fn a_stalled_upload_over_http2_times_out_and_other_streams_go_on() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).yaml_section(TIMEOUTS).start().await;
    let client = lb.h2().await;

    let (stalled, mut sending) = client.open(client.build("POST", "/")).await;
    sending.send_data("hello".into(), false).unwrap();
    let answer = support::in_time("a refusal", stalled).await.unwrap();

    assert_eq!(answer.status(), Refusal::BodyTimeout.status());
    assert_eq!(answer.headers()["proxy-status"], Refusal::BodyTimeout.proxy_status());
    assert_eq!(client.get("/").await.body, "hello");
    let log = lb.access_log(2).await;
    assert_logged(&log[..1], &[Refusal::BodyTimeout]);
    lb.until_idle().await;
    assert_eq!(errors(&lb), 0);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_response_is_nobodys_error() {
    let first = format!("HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n{}", "x".repeat(10_000));
    let rest = "x".repeat(3_990_000);
    let backend = Backend::scripted(Script::each([vec![Act::Write(first.into()), Act::Hold, Act::Write(rest.into())]]));
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_exactly(40).await;

    drop(client);
    backend.release_all();

    lb.until_idle().await;
    let line = lb.access_log(1).await.remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"client_gone".into()));
    assert_eq!(attempts(&line), ["client_gone"]);
    assert_eq!(errors(&lb), 0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_response_is_nobodys_error() {
    let backend = Backend::hanging();
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.until_requests(1).await;

    drop(client);

    lb.until_idle().await;
    let line = lb.access_log(1).await.remove(0);
    assert_eq!((&line["status"], &line["reason"]), (&Value::Null, &"client_gone".into()));
    assert_eq!((attempts(&line), errors(&lb)), (vec!["client_gone"], 0));
}

#[tokio::test]
async fn a_client_that_leaves_during_its_upload_is_nobodys_error() {
    for body in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel"] {
        let backend = Backend::answering(200, "");
        let lb = Lb::with_backends([&backend]).start().await;
        let mut client = lb.raw().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}")).await;
        backend.until_requests(1).await;

        drop(client);

        lb.until_idle().await;
        let line = lb.access_log(1).await.remove(0);
        assert_eq!((&line["reason"], attempts(&line)), (&"client_gone".into(), vec!["client_gone"]), "{body}");
        assert_eq!(errors(&lb), 0, "{body}");
        assert!(backend.only_request().body.content.is_empty(), "half a body is no body");
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_is_nobodys_error_and_its_neighbour_goes_on() {
    let backend = Backend::held("hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    let (gone, mut sending) = client.open(client.build("POST", "/gone")).await;
    sending.send_data("hello".into(), true).unwrap();
    backend.until_requests(1).await;

    sending.send_reset(h2::Reason::CANCEL);
    drop(gone);
    wait_until("the stream should end", || lb.in_flight() == 0).await;
    backend.release_all();

    assert_eq!(client.get("/next").await.body, "hello");
    let log = lb.access_log(2).await;
    assert_eq!((&log[0]["path"], &log[0]["reason"]), (&"/gone".into(), &"client_gone".into()));
    assert_eq!(errors(&lb), 0);
}

#[tokio::test]
async fn an_upload_that_is_reset_over_http2_is_nobodys_error() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    let (gone, mut sending) = client.open(client.build("POST", "/gone")).await;
    sending.send_data("hello".into(), false).unwrap();
    backend.until_requests(1).await;

    sending.send_reset(h2::Reason::CANCEL);
    drop(gone);

    lb.until_idle().await;
    assert_eq!(lb.access_log(1).await[0]["reason"], "client_gone");
    assert_eq!(errors(&lb), 0);
}

#[tokio::test]
async fn http2_requests_are_held_to_the_same_rules() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).yaml_route("match: { path: /here/* }").start().await;
    let client = lb.h2().await;
    let mut expecting = client.build("PUT", "/here");
    expecting.headers_mut().insert("expect", "200-ok".parse().unwrap());
    let cases = [
        (client.build("GET", "/here/%zz"), Refusal::BadTarget),
        (client.build(&"A".repeat(33), "/here"), Refusal::MethodNotSupported),
        (expecting, Refusal::UnknownExpectation),
        (client.build("GET", "/there"), Refusal::NoRoute),
    ];
    let refusals = cases.iter().map(|(_, refusal)| *refusal).collect::<Vec<_>>();

    for (request, refusal) in cases {
        let what = format!("{request:?}");
        assert_refused_on_h2(&client.request(request, &[]).await.unwrap(), refusal, &what);
    }

    let log = lb.access_log(refusals.len()).await;
    assert_logged(&log, &refusals);
    assert!(log.iter().all(|line| line["protocol"] == "HTTP/2"));
    assert_eq!(backend.requests(), 0);
    lb.until_idle().await;
}

#[tokio::test]
async fn over_http2_a_host_that_contradicts_the_authority_reaches_no_backend() {
    let backend = Backend::answering(200, "");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    let mut two_hosts = client.build("GET", "/");
    two_hosts.headers_mut().insert("host", "other.example".parse().unwrap());

    // Pingora says no, below every hook.
    assert_eq!(client.request(two_hosts, &[]).await.unwrap().status, 400);

    assert_eq!(backend.requests(), 0);
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_head_that_is_too_large_over_http2_ends_its_stream_alone() {
    let backend = Backend::answering(200, "hello");
    let listeners = "listeners:\n  - { address: 127.0.0.1:0 }\n  - { address: 127.0.0.1:0, limits: { header_size: 4KiB }, tls: { self_signed: [localhost] } }";
    let lb = Lb::with_backends([&backend]).yaml_section(listeners).start().await;
    let client = lb.h2().await;
    let mut large = client.build("GET", "/");
    large.headers_mut().insert("x-large", "x".repeat(6000).parse().unwrap());

    // The library says no by itself once it has the settings, the front door says 431: both keep the backend out.
    if let Ok(answer) = client.request(large, &[]).await {
        assert_eq!(answer.status, Refusal::HeaderTooLarge.status());
    }

    assert_eq!(client.get("/").await.body, "hello");
    assert_eq!(backend.requests(), 1);
}

#[tokio::test]
async fn too_many_fields_over_http2_are_refused_as_over_http1() {
    let backend = Backend::answering(200, "hello");
    let limits = "limits: { headers: 20 }";
    let listeners = format!(
        "listeners:\n  - {{ address: 127.0.0.1:0, {limits} }}\n  - {{ address: 127.0.0.1:0, {limits}, tls: {{ self_signed: [localhost] }} }}"
    );
    let lb = Lb::with_backends([&backend]).yaml_section(&listeners).start().await;
    let client = lb.h2().await;
    let mut many = client.build("GET", "/");
    for number in 0..30 {
        many.headers_mut().append("x-many", number.into());
    }

    assert_refused_on_h2(&client.request(many, &[]).await.unwrap(), Refusal::HeaderTooLarge, "30 fields");

    assert_eq!(client.get("/").await.body, "hello");
    assert_eq!(backend.requests(), 1);
    assert_logged(&lb.access_log(2).await[..1], &[Refusal::HeaderTooLarge]);
}

#[tokio::test]
async fn every_failure_of_a_backend_has_its_own_refusal() {
    let tls = Backend::over_tls(Script::answering(200, ""));
    let timeouts = "timeouts: { connect: 300ms, first_byte: 100ms, between_bytes: 100ms }";
    for (backend, refusal) in [
        (Backend::refusing(), Refusal::ConnectRefused),
        (Backend::black_hole(), Refusal::ConnectTimeout),
        (tls, Refusal::BackendTls),
        (Backend::closing_after_request(), Refusal::BackendClosed),
        (Backend::resetting_before_head(), Refusal::BackendClosed),
        (Backend::writing("HTTP/1.1 banana\r\n\r\n"), Refusal::BackendProtocol),
        (Backend::writing("SSH-2.0-OpenSSH_9\r\n"), Refusal::BackendProtocol),
        (Backend::hanging(), Refusal::FirstByteTimeout),
    ] {
        let tls = if refusal == Refusal::BackendTls { "tls: { server_name: localhost }" } else { "balance: random" };
        let app = Lb::with_backends([&backend]).yaml_upstream(timeouts).yaml_upstream(tls);
        let lb = app.yaml_route("retry: none").start().await;
        assert_refused(&lb.get("/").await, refusal, refusal.label());
        assert_refused_on_h2(&lb.h2().await.get("/").await, refusal, refusal.label());
        let log = lb.access_log(2).await;
        assert_logged(&log, &[refusal; 2]);
        assert!(log.iter().all(|line| attempts(line) == [refusal.label()]), "{log:#?}");
        lb.until_idle().await;
        assert_eq!(errors(&lb), 2, "{}", refusal.label());
    }
}

#[tokio::test]
async fn a_route_that_takes_too_long_says_so() {
    let backend = Backend::hanging();
    let lb = Lb::with_backends([&backend]).yaml_route("timeout: 100ms").start().await;

    assert_refused(&lb.get("/").await, Refusal::RouteTimeout, "GET /");

    assert_logged(&lb.access_log(1).await, &[Refusal::RouteTimeout]);
    lb.until_idle().await;
}

#[tokio::test]
async fn a_response_that_breaks_off_is_never_taken_for_a_whole_one() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let open = "HTTP/1.1 200 OK\r\n\r\nhello";
    for (backend, reason) in [
        (
            Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(open.into()), Act::Hang]])),
            "stalled_response",
        ),
        (Backend::lying_about_length(10, "half."), "backend_closed"),
        (
            Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(chunked.into()), Act::Close]])),
            "backend_closed",
        ),
        (
            Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(chunked.into()), Act::Hang]])),
            "stalled_response",
        ),
    ] {
        let upstream = "timeouts: { between_bytes: 100ms }";
        let lb = Lb::with_backends([&backend]).yaml_upstream(upstream).start().await;
        let mut client = lb.raw().await;

        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let bytes = client.try_read_to_end().await.unwrap_or_default();

        assert!(!bytes.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&bytes));
        let over_h2 = {
            let h2 = lb.h2().await;
            let request = h2.build("GET", "/");
            h2.request(request, &[]).await
        };
        assert!(over_h2.is_err(), "{reason}");
        let log = lb.access_log(2).await;
        assert!(log.iter().all(|line| line["reason"] == reason && line["status"] == 200), "{log:#?}");
        lb.until_idle().await;
        assert_eq!(errors(&lb), 2);
    }
}

#[tokio::test]
async fn a_flood_of_errors_leaves_nothing_in_flight() {
    let backends = [
        Backend::refusing(),
        Backend::resetting_before_head(),
        Backend::resetting_on_accept(),
        Backend::writing("nonsense\r\n\r\n"),
    ];
    let lb = Lb::with_backends(&backends).start().await;
    let address = lb.address(0);

    let clients = (0..100)
        .map(|number| {
            tokio::spawn(async move {
                let mut client = Client::tcp(address).await;
                client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
                // Every third leaves without reading its answer.
                if number % 3 > 0 {
                    let _ = client.try_read_to_end().await;
                }
            })
        })
        .collect::<Vec<_>>();
    for client in clients {
        support::in_time("a client", client).await.unwrap();
    }

    lb.until_idle().await;
    assert_eq!(lb.access_log(100).await.len(), 100);
    let upstream = lb.upstream("app");
    assert!(upstream.members().iter().all(|member| upstream.in_flight(&member.backend) == 0));
}

#[tokio::test]
async fn a_response_with_a_body_of_the_wrong_kind_is_a_broken_protocol() {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
    ] {
        let backend = Backend::writing(head);
        let lb = Lb::with_backends([&backend]).start().await;

        assert_refused(&lb.get("/").await, Refusal::BackendProtocol, head);

        assert_logged(&lb.access_log(1).await, &[Refusal::BackendProtocol]);
        lb.until_idle().await;
    }
}

#[tokio::test]
async fn a_backends_own_error_is_passed_on_as_it_is() {
    let backend = Backend::writing(response(503, &[("Retry-After", "7")], "busy"));
    let lb = Lb::with_backends([&backend]).start().await;

    let answer = lb.get("/").await;

    assert_eq!((answer.status, answer.text().as_str(), answer.field("retry-after")), (503, "busy", Some("7")));
    assert_eq!((answer.field("proxy-status"), &lb.access_log(1).await[0]["reason"]), (None, &"ok".into()));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_the_backend_is_not_blamed() {
    let backend = Backend::answering(200, &"x".repeat(20_000_000));
    let listeners = TIMEOUTS.replace("body: 100ms", "write: 100ms");
    let lb = Lb::with_backends([&backend]).yaml_section(&listeners).start().await;
    let mut plain = lb.raw().await;
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

    backend.until_requests(1).await;
    lb.until_idle().await;

    assert_eq!(lb.access_log(1).await[0]["reason"], "slow_reader");
    assert_eq!(errors(&lb), 0);
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_cut_off_and_the_backend_is_not_blamed() {
    let backend = Backend::answering(200, &"x".repeat(20_000_000));
    let listeners = TIMEOUTS.replace("body: 100ms", "write: 100ms");
    let lb = Lb::with_backends([&backend]).yaml_section(&listeners).start().await;
    let client = lb.h2().await;
    let (answer, mut sending) = client.open(client.build("POST", "/")).await;
    sending.send_data("".into(), true).unwrap();
    let _unread = support::in_time("an answer", answer).await.unwrap();

    lb.until_idle().await;

    assert_eq!(lb.access_log(1).await[0]["reason"], "slow_reader");
    assert_eq!(errors(&lb), 0);
}

#[tokio::test]
async fn a_backend_that_takes_no_upload_is_to_blame_and_not_its_client() {
    let backend = Backend::scripted(Script::each([vec![Act::Hold]]));
    let listeners = "listeners: [{ address: 127.0.0.1:0, timeouts: { body: 100ms } }]";
    let upstream = "timeouts: { write: 100ms }";
    let lb = Lb::with_backends([&backend]).yaml_upstream(upstream).yaml_section(listeners).start().await;
    let mut client = lb.raw().await;

    let body = "x".repeat(9_000_000);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = client.try_send(request).await;

    lb.until_idle().await;
    let log = lb.access_log(1).await;
    assert_logged(&log, &[Refusal::StalledRequest]);
    assert_eq!((attempts(&log[0]), errors(&lb)), (vec!["stalled_request"], 1));
}
