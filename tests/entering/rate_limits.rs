//! Rate limits through the front door: who is refused, what clients are told, and that nobody gets more than is allowed.

use crate::support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use support::backend::response;
use support::front_door::Builder;
use support::{Backend, Client, Lb, Response};

/// So that a test can send from any address.
const TRUSTING: &str = "server: { trusted_proxies: [127.0.0.0/8] }";

fn limited(backend: &Backend, limits: &str) -> Builder {
    Lb::with_backends([backend]).yaml_route(&format!("rate_limits: [{limits}]"))
}

async fn send(lb: &Lb, method: &str, lines: &str) -> Response {
    lb.send(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await
}

async fn statuses(lb: &Lb, lines: &[&str]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for lines in lines {
        statuses.push(send(lb, "GET", lines).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_request_too_many_is_refused_and_told_when_to_come_back() {
    let backend = Backend::answering(200, "hi");
    let lb = limited(&backend, "{ name: few, rate: 2/h }, { rate: 100/s, key: route }").start().await;
    let first = send(&lb, "GET", "").await;
    assert_eq!(first.field("ratelimit-policy"), Some(r#""few";q=2;w=3600, "100/s by route";q=100;w=1"#));
    assert_eq!(first.field("ratelimit"), Some(r#""few";r=1;t=1800, "100/s by route";r=99;t=1"#));
    assert_eq!(first.field("x-ratelimit-limit"), None);
    assert_eq!(send(&lb, "GET", "").await.status, 200);

    let refused = send(&lb, "GET", "").await;
    let told = [refused.field("retry-after"), refused.field("ratelimit"), refused.field("cache-control")];
    assert_eq!((refused.status, told), (429, [Some("1800"), Some(r#""few";r=0;t=1800"#), Some("no-store")]));
    assert_eq!(refused.field("content-type"), Some("application/problem+json"));
    assert_eq!(
        serde_json::from_slice::<Value>(&refused.body).unwrap(),
        json!({
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded", "title": "Too Many Requests",
            "status": 429, "detail": "too many requests", "violated-policies": ["few"],
        })
    );
    let browser = send(&lb, "GET", "Accept: text/html, */*;q=0.8\r\n").await;
    assert_eq!((browser.status, &*browser.text()), (429, "429 Too Many Requests: too many requests\n"));
    assert_eq!(backend.requests(), 2);
    let reasons: Vec<_> = lb.access_log(4).await.iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(reasons, ["ok", "ok", "rate_limited", "rate_limited"]);
}

#[tokio::test]
async fn clients_are_told_apart_by_address_field_and_method() {
    let backend = Backend::answering(200, "hi");
    let by_address = limited(&backend, "{ rate: 1/h }").yaml_section(TRUSTING).start().await;
    let from =
        ["X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 192.0.2.2\r\n", "X-Forwarded-For: ::ffff:192.0.2.1\r\n"];
    assert_eq!(statuses(&by_address, &from).await, [200, 200, 429]);
    let from = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|it| format!("X-Forwarded-For: {it}\r\n"));
    assert_eq!(statuses(&by_address, &from.each_ref().map(|it| &**it)).await, [200, 429, 200]);

    let by_field = limited(&backend, "{ rate: 1/h, key: \"header:x-org\" }").start().await;
    let sent = ["X-Org: a\r\n", "X-Org: b\r\n", "X-Org: a\r\n", "", ""];
    assert_eq!(statuses(&by_field, &sent).await, [200, 200, 429, 200, 429]);

    let by_method = limited(&backend, "{ rate: 6/h, costs: { DELETE: 5, OPTIONS: 0 } }").start().await;
    let mut sent = Vec::new();
    for method in ["DELETE", "DELETE", "GET", "GET", "OPTIONS"] {
        sent.push(send(&by_method, method, "").await.status);
    }
    assert_eq!(sent, [200, 429, 200, 429, 200]);
}

/// `PORTCULLIS_LIMIT_SECONDS=10` makes it longer, and prints what they had.
#[expect(clippy::print_stderr, reason = "whoever makes it longer wants the figures")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_clients_get_limit_and_burst_and_no_more() {
    let backend = Backend::answering(200, "hi");
    let lb = Arc::new(limited(&backend, "{ rate: 200/s, burst: 50 }, { rate: 1000/s, key: route }").start().await);
    let seconds = std::env::var("PORTCULLIS_LIMIT_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let began = Instant::now();
    let clients = (0..64).map(|_| {
        let lb = lb.clone();
        tokio::spawn(async move {
            let (mut client, mut had, mut asked) = (lb.raw().await, 0, 0);
            while began.elapsed() < Duration::from_secs(seconds) {
                let status = client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status;
                assert!(status == 200 || status == 429);
                (had, asked) = (had + u32::from(status == 200), asked + 1);
            }
            (had, asked)
        })
    });
    let (mut had, mut asked) = (0, 0);
    for client in clients.collect::<Vec<_>>() {
        let (its, all) = client.await.unwrap();
        (had, asked) = (had + its, asked + all);
    }
    let took = began.elapsed().as_secs_f64();
    let most = took * 200.0 + 50.0;
    eprintln!("{had} of {asked} requests were let in within {took:.2} s; {most:.1} is the most");
    // Nor are they kept from what they may have.
    let least = seconds as f64 * 200.0 * 0.8;
    assert!(f64::from(had) <= most && f64::from(had) > least, "{had} of {most}");
    assert_eq!(backend.requests(), had as usize);
}

#[tokio::test]
async fn a_dry_run_refuses_nobody_tells_clients_nothing_and_is_counted_in_the_log() {
    let backend = Backend::answering(200, "hi");
    let lb = limited(&backend, "{ name: maybe, rate: 1/h, dry_run: true }").start().await;
    for _ in 0..3 {
        let answer = send(&lb, "GET", "").await;
        assert_eq!((answer.status, answer.field("ratelimit"), answer.field("ratelimit-policy")), (200, None, None));
    }
    let lines = lb.access_log(3).await;
    assert_eq!(
        lines.iter().map(|line| line["dry_run"].clone()).collect::<Vec<_>>(),
        [json!(null), json!(["maybe"]), json!(["maybe"])]
    );
    assert!(lines.iter().all(|line| line["reason"] == "ok"));
}

#[tokio::test]
async fn older_fields_are_told_where_they_are_asked_for() {
    let backend = Backend::answering(200, "hi");
    for (fields, draft, legacy) in [("legacy", false, true), ("both", true, true), ("none", false, false)] {
        let server = format!("server: {{ rate_limits: {{ headers: {fields} }} }}");
        let lb = limited(&backend, "{ rate: 3/h }, { rate: 1/h, burst: 9 }").yaml_section(&server).start().await;
        let answer = send(&lb, "GET", "").await;
        let three =
            ["limit", "remaining", "reset"].map(|it| answer.field(&format!("x-ratelimit-{it}")).map(str::to_owned));
        let expected = ["3", "2", "1200"].map(|it| legacy.then(|| it.to_owned()));
        assert_eq!((three, answer.field("ratelimit").is_some()), (expected, draft), "{fields}");
        assert_eq!(statuses(&lb, &["", "", ""]).await, [200, 200, 429]);
        assert_eq!(send(&lb, "GET", "").await.field("retry-after"), Some("1200"));
    }
}

#[tokio::test]
async fn fields_of_the_backend_are_never_made_more_permissive() {
    let theirs =
        [("RateLimit", r#""app";r=0;t=99"#), ("RateLimit-Policy", r#""app";q=1;w=99"#), ("X-RateLimit-Remaining", "0")];
    let backend = Backend::writing(response(200, &theirs, "hi"));
    let server = "server: { rate_limits: { headers: both } }";
    let lb = limited(&backend, "{ name: ours, rate: 9/h }").yaml_section(server).start().await;
    let answer = send(&lb, "GET", "").await;
    assert_eq!(answer.fields("ratelimit"), [r#""app";r=0;t=99"#, r#""ours";r=8;t=400"#]);
    assert_eq!(answer.fields("ratelimit-policy"), [r#""app";q=1;w=99"#, r#""ours";q=9;w=3600"#]);
    assert_eq!(answer.fields("x-ratelimit-remaining"), ["0"]);
}

#[tokio::test]
async fn answers_from_the_store_count_and_no_count_is_stored() {
    let fields = [("Cache-Control", "max-age=60"), ("RateLimit", r#""app";r=1;t=9"#)];
    let backend = Backend::writing(response(200, &fields, "hi"));
    let lb = limited(&backend, "{ name: ours, rate: 3/h }").yaml_route("cache: {}").start().await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let answer = send(&lb, "GET", "").await;
        told.push(format!("{} {}", answer.status, answer.fields("ratelimit").join(" | ")));
    }
    let expected = [
        r#"200 "app";r=1;t=9 | "ours";r=2;t=1200"#,
        r#"200 "ours";r=1;t=2400"#,
        r#"200 "ours";r=0;t=1200"#,
        r#"429 "ours";r=0;t=1200"#,
    ];
    assert_eq!((told, backend.requests()), (expected.map(str::to_owned).to_vec(), 1));
}

#[tokio::test]
async fn http_2_and_upgrades_are_limited_as_all_else_is() {
    let backend = Backend::upgrading_echo();
    let lb = limited(&backend, "{ rate: 1/h }").start().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let mut client = lb.raw().await;
    assert_eq!(client.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n")).await.status, 101);
    client.send("ping").await;
    assert_eq!(client.read_exactly(4).await, "ping");
    assert_eq!(send(&lb, "GET", upgrade).await.status, 429);
    let over_h2 = lb.h2().await.get("/").await;
    assert_eq!((over_h2.status.as_u16(), over_h2.field("retry-after")), (429, Some("3600")));
    let problem: Value = serde_json::from_slice(&over_h2.body).unwrap();
    assert_eq!(problem["violated-policies"], json!(["1/h by client_address"]));
}

#[tokio::test]
async fn counts_outlive_a_reload_that_leaves_the_limit_as_it_is() {
    let backend = Backend::answering(200, "hi");
    let file = |limits: &str, more: &str| limited(&backend, limits).yaml_section(more);
    let lb = file("{ rate: 2/h }", "").start().await;
    assert_eq!(statuses(&lb, &["", "", ""]).await, [200, 200, 429]);
    let other = "server: { rate_limits: { entries: 5000, headers: none } }";
    lb.reload(file("{ rate: 2/h }, { rate: 9/s }", other)).await.unwrap();
    assert_eq!(statuses(&lb, &[""]).await, [429]);
    lb.reload(file("{ rate: 3/h }", "")).await.unwrap();
    assert_eq!(statuses(&lb, &[""]).await, [200]);
    lb.reload(file("{ rate: 2/h }", "")).await.unwrap();
    assert_eq!(statuses(&lb, &[""]).await, [429]);
}

#[tokio::test]
async fn limits_of_one_name_are_one_in_all_routes() {
    let backend = Backend::answering(200, "hi");
    let lb = Lb::yaml(format!(
        "upstreams: {{ app: {{ backends: [\"{}\"], health_check: none }} }}\nroutes:\n  \
         - {{ upstream: app, rate_limits: [{{ name: budget, rate: 10/h }}] }}\n  \
         - {{ upstream: app, match: {{ path: /search }}, rate_limits: [{{ name: budget, rate: 10/h, cost: 8 }}] }}\n",
        backend.url()
    ))
    .start()
    .await;
    let mut sent = Vec::new();
    for path in ["/search", "/search", "/", "/", "/"] {
        sent.push(lb.get(path).await.status);
    }
    assert_eq!(sent, [200, 429, 200, 200, 429]);
}

/// A password that takes long to compare is compared no more often than the limit allows, right or wrong.
#[tokio::test]
async fn guessing_is_limited_before_a_password_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let hash = bcrypt::hash("opensesame", 4).unwrap();
    std::fs::write(folder.path().join("users"), format!("ann:{hash}\nbob:{hash}\n")).unwrap();
    let backend = Backend::answering(200, "in");
    let limits = "{ name: guesses, rate: 3/h }, { name: each, rate: 1/h, key: api_key }";
    let builder = limited(&backend, limits).yaml_route("auth: { basic: users }").yaml_section(TRUSTING);
    let lb = builder.try_start_in(folder).await.unwrap();
    let basic = |address: u8, name: &str, password: &str| {
        let credentials = STANDARD.encode(format!("{name}:{password}"));
        format!("X-Forwarded-For: 192.0.2.{address}\r\nAuthorization: Basic {credentials}\r\n")
    };
    let wrong = send(&lb, "GET", &basic(1, "ann", "wrong")).await;
    assert_eq!((wrong.status, wrong.field("ratelimit")), (401, Some(r#""guesses";r=2;t=1200"#)));
    let sent = [(1, "ann", "wrong"), (1, "ann", "wrong"), (1, "ann", "wrong"), (1, "ann", "opensesame")];
    let sent = sent.map(|(address, name, password)| basic(address, name, password));
    assert_eq!(statuses(&lb, &sent.each_ref().map(|it| &**it)).await, [401, 401, 429, 429]);
    // Elsewhere each name has its own count, from whichever address it comes.
    let sent = [(2, "ann"), (3, "ann"), (2, "bob")].map(|(address, name)| basic(address, name, "opensesame"));
    assert_eq!(statuses(&lb, &sent.each_ref().map(|it| &**it)).await, [200, 429, 200]);
    let lines = lb.access_log(8).await;
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    let guessed = ["credentials_wrong"; 3];
    assert_eq!(reasons, [&guessed[..], &["rate_limited"; 2], &["ok", "rate_limited", "ok"]].concat());
    assert_eq!(
        (&lines[4]["identity"], &lines[6]["identity"]),
        (&json!(null), &json!("ann")),
        "who was not asked, and who was"
    );
}

#[tokio::test]
async fn who_has_no_address_shares_a_count_with_all_who_have_none() {
    let backend = Backend::answering(200, "hi");
    let lb = limited(&backend, "{ rate: 1/h }").yaml_section("listeners: [{ address: unix:front.sock }]").start().await;
    let mut sent = Vec::new();
    for _ in 0..2 {
        let mut client = Client::unix(&lb.folder().join("front.sock")).await;
        sent.push(client.exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status);
    }
    assert_eq!(sent, [200, 429]);
}

#[tokio::test]
async fn a_limit_by_a_field_counts_what_the_client_sent_and_not_what_is_made_of_it() {
    let backend = Backend::answering(200, "hi");
    let route = "headers: { request: { set: { X-Team: all } } }";
    let lb = limited(&backend, r#"{ rate: 1/h, key: "header:X-Team" }"#).yaml_route(route).start().await;
    let lines = ["X-Team: a\r\n", "X-Team: b\r\n", "X-Team: a\r\n", "X-Team: all\r\n", "X-Team: b\r\n"];
    assert_eq!(statuses(&lb, &lines).await, [200, 200, 429, 200, 429]);
    assert!(backend.received().iter().all(|it| it.field("x-team") == Some("all")));
}

#[tokio::test]
async fn a_limit_by_the_credentials_counts_them_though_they_are_taken_away() {
    let backend = Backend::answering(200, "hi");
    let folder = tempfile::tempdir().unwrap();
    let hash = |key: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let (one, two) = ("0123456789abcdef-one", "0123456789abcdef-two");
    let entry = |name: &str, key: &str| format!("- {{ name: {name}, hash: \"sha256:{}\" }}\n", hash(key));
    std::fs::write(folder.path().join("keys.yaml"), entry("one", one) + &entry("two", two)).unwrap();
    let builder = limited(&backend, r#"{ rate: 2/h, key: "header:X-API-Key" }"#);
    let builder = builder.yaml_section("keys: { team: { file: keys.yaml } }").yaml_route("auth: { api_keys: team }");
    let lb = builder.try_start_in(folder).await.unwrap();
    let field = |key: &str| format!("X-API-Key: {key}\r\n");
    let lines = [field(one), field(one), field(one), field(two), field("0123456789abcdef-none"), field(two)];
    assert_eq!(statuses(&lb, &lines.each_ref().map(String::as_str)).await, [200, 200, 429, 200, 401, 200]);
    assert!(backend.received().iter().all(|it| it.field("x-api-key").is_none()));
}
