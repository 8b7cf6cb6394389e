//! Failover on connect: nothing is lost while anyone can serve, nothing is sent twice that may not be, and what could
//! not be served says why.

use crate::support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::backend::response;
use support::{Act, Backend, Lb, Script};

const SHORT: &str = "timeouts: { connect: 200ms }";

/// `backend=outcome` of each attempt, with `a`, `b`, ... for the backends of the test.
fn attempts(line: &Value, backends: &[&Backend]) -> String {
    let letter = |name: &str| {
        let place = backends.iter().position(|backend| backend.address().to_string() == name).unwrap();
        (b'a' + u8::try_from(place).unwrap()) as char
    };
    let attempts = line["attempts"].as_array().unwrap().iter();
    let words = attempts.map(|attempt| {
        format!("{}={}", letter(attempt["backend"].as_str().unwrap()), attempt["outcome"].as_str().unwrap())
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Nobody is in flight any more, on any backend.
async fn all_given_back(lb: &Lb) {
    lb.until_idle().await;
    let upstream = lb.upstream("app");
    for member in upstream.members() {
        assert_eq!(upstream.in_flight(&member.backend), 0, "{}", member.backend.name);
    }
}

#[tokio::test]
async fn a_refused_connection_moves_on_at_once_whatever_the_method() {
    let (dead, live) = (Backend::refusing(), Backend::answering(200, "hello"));
    let lb = Lb::with_backends([&dead, &live]).start().await;
    let began = Instant::now();

    for _ in 0..4 {
        assert_eq!(lb.get("/").await.body, "hello");
        assert_eq!(lb.post("/", "all of it").await.body, "hello");
    }

    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let posts = live.received().into_iter().filter(|request| request.head.first_line.starts_with("POST"));
    assert_eq!(posts.map(|post| post.body.content).collect::<Vec<_>>(), ["all of it"; 4]);
    let log = lb.access_log(8).await;
    let words = log.iter().map(|line| attempts(line, &[&dead, &live])).collect::<Vec<_>>();
    assert!(words.iter().all(|words| words == "a=connect_refused b=ok" || words == "b=ok"), "{words:?}");
    assert!(words.iter().any(|words| words.starts_with('a')), "{words:?}");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_request_that_was_served_after_a_refusal_is_logged_as_ok() {
    let (dead, live) = (Backend::refusing(), Backend::answering(200, "hello"));
    let lb = Lb::with_backends([&dead, &live]).start().await;

    lb.get("/").await;
    lb.get("/").await;

    for line in lb.access_log(2).await {
        assert_eq!((&line["reason"], &line["status"]), (&"ok".into(), &200.into()), "{line}");
        assert_eq!(line["backend"], live.address().to_string(), "{line}");
    }
}

#[tokio::test]
async fn a_body_of_two_megabytes_survives_the_move() {
    let (dead, live) = (Backend::refusing(), Backend::answering(200, "hello"));
    let lb = Lb::with_backends([&dead, &live]).start().await;
    let body = "0123456789abcdef".repeat(128 << 10);

    for _ in 0..2 {
        assert_eq!(lb.post("/", &body).await.status, 200);
    }

    for request in live.received() {
        assert!(request.body.content == body.as_bytes(), "{} bytes arrived", request.body.content.len());
    }
}

#[tokio::test]
async fn http2_requests_move_on_too() {
    let (dead, live) = (Backend::refusing(), Backend::answering(200, "hello"));
    let lb = Lb::with_backends([&dead, &live]).start().await;
    let client = lb.h2().await;

    for _ in 0..2 {
        assert_eq!(client.get("/").await.body, "hello");
        assert_eq!(client.post("/", "all of it").await.body, "hello");
    }

    assert!(lb.access_log(4).await.iter().all(|line| line["reason"] == "ok"));
}

#[tokio::test]
async fn a_black_hole_costs_the_connect_timeout_and_no_more() {
    let (hole, live) = (Backend::black_hole(), Backend::answering(200, "hello"));
    let lb = Lb::with_backends([&hole, &live]).yaml_upstream(SHORT).start().await;

    for _ in 0..2 {
        assert_eq!(lb.post("/", "x").await.body, "hello");
    }

    let log = lb.access_log(2).await;
    let line = log.iter().find(|line| attempts(line, &[&hole, &live]) == "a=connect_timeout b=ok").unwrap();
    let total = line["total_ms"].as_f64().unwrap();
    assert!((200.0..900.0).contains(&total), "{line}");
    assert!((200.0..900.0).contains(&line["attempts"][0]["ms"].as_f64().unwrap()), "{line}");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn when_all_refuse_the_answer_is_502_and_says_so() {
    let dead = [Backend::refusing(), Backend::refusing(), Backend::refusing()];
    let lb = Lb::with_backends(&dead).start().await;

    let answer = lb.get("/").await;

    assert_eq!(answer.status, 502);
    assert_eq!(
        answer.field("proxy-status"),
        Some(r#"portcullis; error=connection_refused; details="connect_refused""#)
    );
    assert_eq!(answer.text(), "502 Bad Gateway: the service could not be reached\n");
    let line = &lb.access_log(1).await[0];
    assert_eq!((&line["reason"], &line["status"]), (&"connect_refused".into(), &502.into()));
    let mut words = attempts(line, &[&dead[0], &dead[1], &dead[2]]).split(' ').map(str::to_owned).collect::<Vec<_>>();
    // Three rounds, and nobody twice in one.
    for round in words.chunks_mut(3) {
        round.sort();
        assert_eq!(round, ["a=connect_refused", "b=connect_refused", "c=connect_refused"]);
    }
    assert_eq!(words.len(), 9);
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_backend_that_refuses_alone_is_asked_again_after_a_pause_as_it_may_be_coming_back() {
    let cases = [("{}", 3), ("{ attempts: 2 }", 2), ("none", 1), ("{ budget: { share: 0%, min_per_second: 0 } }", 1)];
    for (retry, expected) in cases {
        let dead = Backend::refusing();
        let lb = Lb::with_backends([&dead]).yaml_route(&format!("retry: {retry}")).start().await;

        assert_eq!(lb.post("/", "nothing of it was sent").await.status, 502, "{retry}");

        let line = &lb.access_log(1).await[0];
        assert_eq!(attempts(line, &[&dead]), vec!["a=connect_refused"; expected].join(" "), "{retry}");
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn when_none_answers_in_time_the_answer_is_504() {
    let holes = [Backend::black_hole(), Backend::black_hole()];
    let lb = Lb::with_backends(&holes).yaml_upstream(SHORT).start().await;

    let answer = lb.get("/").await;

    assert_eq!(answer.status, 504);
    assert_eq!(
        answer.field("proxy-status"),
        Some(r#"portcullis; error=connection_timeout; details="connect_timeout""#)
    );
    let line = &lb.access_log(1).await[0];
    assert_eq!(line["reason"], "connect_timeout");
    assert_eq!(line["attempts"].as_array().unwrap().len(), 2);
    all_given_back(&lb).await;
}

#[tokio::test]
async fn when_nobody_may_serve_the_answer_is_503_and_nobody_is_asked() {
    let backend = Backend::answering(200, "never");
    let yaml = format!(
        "upstreams:\n  app:\n    backends: [{{ url: \"{}\", weight: 0 }}]\n    health_check: none\n\
         routes:\n  - upstream: app\n",
        backend.url()
    );
    let lb = Lb::yaml(yaml).start().await;

    let answer = lb.get("/").await;

    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.field("proxy-status"),
        Some(r#"portcullis; error=destination_unavailable; details="no_backend""#)
    );
    let line = &lb.access_log(1).await[0];
    assert_eq!(
        (&line["reason"], &line["backend"], &line["upstream"]),
        (&"no_backend".into(), &Value::Null, &"app".into())
    );
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn in_a_mixture_the_only_good_one_is_found_and_nobody_is_asked_twice() {
    let (dead, hole, other) = (Backend::refusing(), Backend::black_hole(), Backend::refusing());
    let live = Backend::answering(200, "hello");
    let all = [&dead, &hole, &other, &live];
    let lb = Lb::with_backends(all).yaml_upstream(SHORT).start().await;

    for _ in 0..4 {
        assert_eq!(lb.get("/").await.body, "hello");
    }

    for line in lb.access_log(4).await {
        let words = attempts(&line, &all);
        let names = words.split(' ').map(|word| &word[..1]).collect::<Vec<_>>();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{words}");
        assert!(words.ends_with("d=ok"), "{words}");
    }
}

#[tokio::test]
async fn a_backup_serves_while_probes_have_not_noticed_that_the_primaries_are_gone() {
    let (dead, backup) = (Backend::refusing(), Backend::named("backup"));
    let yaml = format!(
        "upstreams:\n  app:\n    backends:\n      - \"{}\"\n      - {{ url: \"{}\", backup: true }}\n    \
         health_check: none\nroutes:\n  - upstream: app\n",
        dead.url(),
        backup.url()
    );
    let lb = Lb::yaml(yaml).start().await;

    assert_eq!(lb.get("/").await.body, "backup");

    assert_eq!(attempts(&lb.access_log(1).await[0], &[&dead, &backup]), "a=connect_refused b=ok");
}

#[tokio::test]
async fn a_stale_connection_gets_one_free_try_on_a_fresh_one() {
    let backend = Backend::stale_after(1, "hello");
    let lb = Lb::with_backends([&backend]).start().await;

    for _ in 0..3 {
        assert_eq!(lb.get("/").await.body, "hello");
    }

    let log = lb.access_log(3).await;
    let words = log.iter().map(|line| attempts(line, &[&backend])).collect::<Vec<_>>();
    assert_eq!(words, ["a=ok", "a=backend_closed a=ok", "a=ok"], "{log:#?}");
    assert!(log.iter().all(|line| line["reason"] == "ok"));
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_stale_connection_is_not_the_backends_failure() {
    let backend = Backend::stale_after(1, "hello");
    let lb = Lb::with_backends([&backend]).start().await;

    lb.get("/").await;
    lb.get("/").await;
    lb.until_idle().await;

    let reading = lb.upstream("app").members()[0].backend.reading();
    assert_eq!((reading.errors, reading.failures_in_row), (0, 0));
}

#[tokio::test]
async fn a_post_on_a_stale_connection_is_not_sent_twice() {
    let backend = Backend::stale_after(1, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    lb.get("/").await;

    let answer = lb.post("/", "pay").await;

    assert_eq!(answer.status, 502);
    assert_eq!(backend.requests(), 2);
    let log = lb.access_log(2).await;
    assert_eq!(
        (attempts(&log[1], &[&backend]).as_str(), &log[1]["reason"]),
        ("a=backend_closed", &"backend_closed".into())
    );
}

#[tokio::test]
async fn once_a_connection_was_stale_a_post_gets_a_fresh_one_and_a_get_the_pool() {
    let backend = Backend::stale_after(2, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    // The third finds its connection closed, and gets its free try.
    for _ in 0..3 {
        lb.get("/").await;
    }

    for _ in 0..3 {
        assert_eq!(lb.post("/", "pay").await.body, "hello");
        lb.get("/").await;
    }

    let log = lb.access_log(9).await;
    let words: Vec<_> = log.iter().map(|line| attempts(line, &[&backend])).collect();
    let posts: Vec<_> = log[3..].iter().zip(&words[3..]).filter(|(line, _)| line["method"] == "POST").collect();
    assert!(
        posts.len() == 3 && posts.iter().all(|(line, words)| *words == "a=ok" && line["connect_ms"].is_number()),
        "{log:#?}"
    );
    let reused = log[3..].iter().filter(|line| line["method"] == "GET" && line["connect_ms"].is_null()).count();
    assert!(reused > 0, "{log:#?}");
}

#[tokio::test]
async fn the_free_try_is_only_one() {
    // The first connection answers once; each one after that is cut as soon as a request has come.
    let answer = vec![Act::ReadBody, Act::Write(response(200, &[], "hello"))];
    let backend = Backend::scripted(Script::each([answer, vec![Act::ReadBody, Act::Reset]]));
    let lb = Lb::with_backends([&backend]).yaml_route("retry: none").start().await;
    lb.get("/").await;

    assert_eq!(lb.get("/").await.status, 502);

    assert_eq!(backend.requests(), 3);
    let log = lb.access_log(2).await;
    assert_eq!(attempts(&log[1], &[&backend]), "a=backend_closed a=backend_closed");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_connection_that_was_closed_while_it_was_idle_is_not_used() {
    let backend = Backend::closing_after(1, "hello");
    let lb = Lb::with_backends([&backend]).start().await;

    for _ in 0..5 {
        assert_eq!(lb.get("/").await.body, "hello");
        assert_eq!(lb.post("/", "pay").await.status, 200);
    }

    assert_eq!(backend.requests(), 10);
}

#[tokio::test]
async fn a_backend_that_hangs_up_on_a_fresh_connection_is_not_asked_again_without_retries() {
    for backend in [Backend::closing_after_request(), Backend::resetting_before_head()] {
        let other = Backend::closing_after_request();
        let lb = Lb::with_backends([&backend, &other]).yaml_route("retry: none").start().await;

        let answer = lb.get("/").await;

        assert_eq!(answer.status, 502);
        assert_eq!(
            answer.field("proxy-status"),
            Some(r#"portcullis; error=connection_terminated; details="backend_closed""#)
        );
        assert_eq!(backend.requests() + other.requests(), 1);
        let line = &lb.access_log(1).await[0];
        assert_eq!(line["reason"], "backend_closed", "{line}");
        assert_eq!(line["attempts"][0]["outcome"], "backend_closed", "{line}");
        all_given_back(&lb).await;
    }
}

#[tokio::test]
async fn a_response_cut_in_its_body_reaches_the_client_cut_and_is_logged_so() {
    let backend = Backend::resetting_mid_body();
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    backend.until_requests(1).await;
    backend.release();

    let error = client.try_read_response(support::bytes_on_the_wire::Framing::UntilClose).await.unwrap_err();

    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    let line = &lb.access_log(1).await[0];
    assert_eq!((&line["reason"], &line["status"]), (&"backend_closed".into(), &200.into()), "{line}");
    assert_eq!(line["bytes_out"], 5, "{line}");
    assert_eq!(attempts(line, &[&backend]), "a=backend_closed");
    all_given_back(&lb).await;
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_the_backends_fault() {
    let backend = Backend::lying_about_length(9, "short");
    let lb = Lb::with_backends([&backend]).start().await;
    let mut client = lb.raw().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;

    assert!(client.try_read_response(support::bytes_on_the_wire::Framing::UntilClose).await.is_err());

    let line = &lb.access_log(1).await[0];
    assert_eq!((&line["reason"], &line["status"]), (&"backend_closed".into(), &200.into()), "{line}");
}

#[tokio::test]
async fn a_failed_tls_handshake_moves_on() {
    let plain = Backend::answering(200, "not tls");
    let good = Backend::over_tls(Script::answering(200, "secret"));
    let wrong = format!("https://{}", plain.address());
    let tls = "tls: { verify: false, server_name: localhost }";
    let lb = Lb::with_urls([wrong, good.url()]).yaml_upstream(tls).yaml_upstream(SHORT).start().await;

    for _ in 0..4 {
        assert_eq!(lb.post("/", "x").await.body, "secret");
    }

    let log = lb.access_log(4).await;
    assert!(log.iter().all(|line| line["reason"] == "ok"));
    assert!(log.iter().any(|line| line["attempts"][0]["outcome"] != "ok"));
}

#[tokio::test]
async fn a_backend_whose_name_is_not_resolved_is_passed_over() {
    let live = Backend::answering(200, "hello");
    let urls = ["http://portcullis-test.invalid:80".to_owned(), live.url()];
    let lb = Lb::with_urls(urls).start().await;

    for _ in 0..4 {
        assert_eq!(lb.post("/", "x").await.body, "hello");
    }

    assert!(lb.access_log(4).await.iter().all(|line| line["reason"] == "ok"));
}

#[tokio::test]
async fn a_name_with_two_addresses_is_served_by_the_one_that_listens() {
    let live = Backend::answering(200, "hello");
    let lb = Lb::with_urls([format!("http://localhost:{}", live.address().port())]).start().await;

    for _ in 0..6 {
        assert_eq!(lb.post("/", "x").await.body, "hello");
    }

    assert!(lb.access_log(6).await.iter().all(|line| line["reason"] == "ok"));
    assert_eq!(lb.upstream("app").members()[0].backend.reading().errors, 0);
}

#[tokio::test]
async fn nobody_is_in_flight_after_a_flood_of_errors() {
    let bad = [
        Backend::refusing(),
        Backend::closing_after_request(),
        Backend::resetting_on_accept(),
        Backend::writing("no HTTP at all\r\n\r\n"),
        Backend::lying_about_length(3, "too long"),
    ];
    let lb = Lb::with_backends(&bad).yaml_upstream("balance: least_connections").start().await;

    for _ in 0..10 {
        let mut client = lb.raw().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
        let _ = client.try_read_response(support::bytes_on_the_wire::Framing::UntilClose).await;
        let mut impatient = lb.raw().await;
        impatient.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    }

    lb.access_log(20).await;
    all_given_back(&lb).await;
}
