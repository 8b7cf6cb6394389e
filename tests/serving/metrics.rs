//! The page of metrics of a live front door: well formed whatever is in it, true after requests, and kept over a reload.

use crate::support;

use std::io::Write;
use std::process::{Command, Stdio};

use portcullis::auth::keys::NewKey;
use support::backend::response;
use support::front_door::Builder;
use support::tls::Certificate;
use support::{Act, Backend, Client, Exposition, Lb, Script, in_time};

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// What is there when whatever was asked has ended.
async fn metrics(lb: &Lb) -> Exposition {
    lb.until_idle().await;
    lb.metrics().await
}

fn shop(backend: &Backend) -> Builder {
    Lb::with_backends([backend]).yaml_route("name: shop").yaml_route("match: { path: /shop }")
}

#[tokio::test]
async fn requests_are_counted_by_route_status_and_protocol() {
    let backend = Backend::answering(201, "made it");
    let lb = shop(&backend).start().await;
    lb.post("/shop", "one book").await;
    lb.get("/shop").await;
    lb.h2().await.get("/shop").await;
    lb.get("/nowhere").await;
    lb.send("nonsense\r\n\r\n").await;

    let page = metrics(&lb).await;
    let requests = |labels| page.value("portcullis_requests_total", labels);
    assert_eq!(requests(&[("route", "shop"), ("status", "201"), ("protocol", "HTTP/1.1")]), Some(2.0));
    assert_eq!(requests(&[("route", "shop"), ("status", "201"), ("protocol", "HTTP/2")]), Some(1.0));
    assert_eq!(requests(&[("route", ""), ("status", "404")]), Some(1.0));
    assert_eq!(page.value("portcullis_request_failures_total", &[("reason", "no_route")]), Some(1.0));
    assert_eq!(page.sum("portcullis_request_failures_total", &[("route", "shop")]), 0.0);
    assert_eq!(page.sum("portcullis_requests_refused_early_total", &[("reason", "malformed_request")]), 1.0);
    assert_eq!(page.value("portcullis_request_body_bytes_total", &[("route", "shop")]), Some(8.0));
    assert_eq!(page.value("portcullis_response_body_bytes_total", &[("route", "shop")]), Some(21.0));
    for family in ["portcullis_request_duration_seconds", "portcullis_request_first_byte_seconds"] {
        assert_eq!(page.value(&format!("{family}_count"), &[("route", "shop")]), Some(3.0), "{family}");
        assert!(page.value(&format!("{family}_sum"), &[("route", "shop")]).unwrap() > 0.0, "{family}");
    }
    assert_eq!(page.value("portcullis_request_first_byte_seconds_count", &[("route", "")]), Some(0.0));
}

#[tokio::test]
async fn attempts_are_counted_as_the_access_log_tells_them() {
    let (dead, live) = (Backend::refusing(), Backend::answering(200, "hello"));
    let lb = Lb::with_backends([&dead, &live]).start().await;
    for _ in 0..4 {
        lb.get("/").await;
    }

    let page = metrics(&lb).await;
    let log = lb.access_log(4).await;
    for backend in [&dead, &live] {
        for outcome in ["ok", "connect_refused"] {
            let name = backend.address().to_string();
            let attempts = log.iter().flat_map(|line| line["attempts"].as_array().unwrap());
            let logged = attempts.filter(|it| it["backend"] == name.as_str() && it["outcome"] == outcome).count();
            let counted = page.sum("portcullis_backend_attempts_total", &[("backend", &name), ("outcome", outcome)]);
            assert_eq!(counted, logged as f64, "{name} {outcome}");
        }
    }
    let live = live.address().to_string();
    let connections = |kind| page.value("portcullis_backend_connections_total", &[("backend", &live), ("kind", kind)]);
    assert_eq!((connections("new"), connections("reused")), (Some(1.0), Some(3.0)));
    assert_eq!(page.value("portcullis_backend_requests_total", &[("backend", &live)]), Some(4.0));
    assert_eq!(page.sum("portcullis_backend_state", &[("backend", &live)]), 1.0);
    assert_eq!(page.value("portcullis_backend_state", &[("backend", &live), ("state", "HEALTHY")]), Some(1.0));
}

#[tokio::test]
async fn retries_are_counted_with_the_answers_that_were_dropped() {
    let answers = [503, 200].map(|status| vec![Act::ReadBody, Act::Write(response(status, &[], ""))]);
    let backend = Backend::scripted(Script::each(answers));
    let other = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(response(200, &[], ""))]]));
    let lb = Lb::with_backends([&backend, &other]).yaml_route("name: r");
    let lb = lb.start().await;
    for _ in 0..2 {
        assert_eq!(lb.get("/").await.status, 200);
    }

    let page = metrics(&lb).await;
    assert_eq!(page.value("portcullis_retries_total", &[("route", "r")]), Some(1.0));
    assert_eq!(page.sum("portcullis_backend_attempts_total", &[("outcome", "status_503")]), 1.0);
    assert_eq!(page.sum("portcullis_backend_attempts_total", &[("outcome", "ok")]), 2.0);
    assert_eq!(page.sum("portcullis_hedges_total", &[]), 0.0);
}

#[tokio::test]
async fn counts_outlive_a_reload_and_what_is_gone_is_not_shown() {
    let (backend, other) = (Backend::answering(200, "hello"), Backend::answering(200, "other"));
    let lb = shop(&backend).start().await;
    lb.get("/shop").await;
    let hash = |page: &Exposition| {
        page.all("portcullis_config_info", &[]).next().map(|sample| sample.labels["hash"].clone()).unwrap()
    };
    let before = metrics(&lb).await;

    lb.reload(shop(&backend).yaml_route("timeout: 7s")).await.unwrap();
    lb.get("/shop").await;
    let page = metrics(&lb).await;
    assert_eq!(page.sum("portcullis_requests_total", &[("route", "shop")]), 2.0);
    let gone = backend.address().to_string();
    assert_eq!(page.sum("portcullis_backend_attempts_total", &[("backend", &gone)]), 2.0);
    assert_ne!(hash(&before), hash(&page));
    assert_eq!(page.value("portcullis_reloads_total", &[("outcome", "done")]), Some(1.0));

    lb.reload(Lb::with_backends([&other]).yaml_route("name: next")).await.unwrap();
    let page = metrics(&lb).await;
    for sample in &page.samples {
        let values: Vec<_> = sample.labels.values().collect();
        assert!(values.iter().all(|value| **value != "shop" && **value != gone), "{sample:?}");
    }
    lb.reload(shop(&backend)).await.unwrap();
    assert_eq!(metrics(&lb).await.sum("portcullis_requests_total", &[("route", "shop")]), 0.0);
}

#[tokio::test]
async fn names_with_quotes_and_backslashes_are_escaped() {
    let backend = Backend::answering(200, "hello");
    let name = "a\"b\\c{d}=e,f é";
    let lb = Lb::with_backends([&backend]).yaml_route("name: 'a\"b\\c{d}=e,f é'").start().await;
    lb.get("/").await;
    assert_eq!(metrics(&lb).await.value("portcullis_requests_total", &[("route", name)]), Some(1.0));
}

#[tokio::test]
async fn every_family_of_the_catalogue_is_on_every_page_with_its_kind() {
    let lb = Lb::yaml("routes: [{ respond: { status: 200, body: hi } }]\n").start().await;
    let page = metrics(&lb).await;
    let families = portcullis::observe::metrics::catalogue::CATALOGUE.iter().flat_map(|section| section.families);
    for family in families.clone() {
        assert_eq!(page.kinds.get(family.name).map(String::as_str), Some(family.kind.word()), "{}", family.name);
    }
    assert_eq!(families.count(), page.kinds.len());
    for sample in &page.samples {
        let labels = portcullis::observe::metrics::catalogue::CATALOGUE.iter().flat_map(|section| section.families);
        let family =
            labels.filter(|family| sample.name.starts_with(family.name)).max_by_key(|family| family.name.len());
        let mut expected: Vec<_> = family.unwrap().labels.to_vec();
        expected.extend(sample.name.ends_with("_bucket").then_some("le"));
        expected.sort_unstable();
        assert_eq!(sample.labels.keys().collect::<Vec<_>>(), expected, "{sample:?}");
    }
}

#[tokio::test]
async fn limits_credentials_and_the_cache_have_their_counts() {
    let body = "x".repeat(5000);
    let cacheable = response(200, &[("Cache-Control", "max-age=60"), ("Content-Type", "text/plain")], &body);
    let backend = Backend::writing(cacheable);
    let lb = Lb::with_backends([&backend]).yaml_route("name: api").yaml_route("cache: {}");
    let lb = lb.yaml_route("compress: {}").yaml_route("rate_limits: [{ name: few, rate: 2/h }]").start().await;
    for _ in 0..3 {
        lb.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    }

    let page = metrics(&lb).await;
    let verdict =
        |verdict| page.value("portcullis_rate_limit_requests_total", &[("limit", "few"), ("verdict", verdict)]);
    assert_eq!([verdict("allowed"), verdict("refused"), verdict("would_refuse")], [Some(2.0), Some(1.0), Some(0.0)]);
    assert_eq!(page.value("portcullis_rate_limit_entries", &[]), Some(1.0));
    let cache = |outcome| page.sum("portcullis_cache_requests_total", &[("route", "api"), ("outcome", outcome)]);
    assert_eq!((cache("miss"), cache("hit")), (1.0, 1.0));
    assert_eq!(page.value("portcullis_cache_objects", &[]), Some(1.0));
    assert_eq!(page.value("portcullis_cache_stored_total", &[]), Some(1.0));
    let coded = [("coding", "gzip"), ("direction", "encode")];
    assert_eq!(page.value("portcullis_compression_answers_total", &coded), Some(2.0));
    assert!(page.sum("portcullis_compression_output_bytes_total", &coded) < 1000.0);
    assert_eq!(page.sum("portcullis_request_failures_total", &[("reason", "rate_limited")]), 1.0);
}

#[tokio::test]
async fn connections_and_handshakes_are_counted_by_listener() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    let mut open = lb.tls().await;
    open.exchange("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut lost = Client::tcp(lb.address(1)).await;
    lost.send("GET / HTTP/1.1\r\n\r\n").await;
    lost.read_to_end().await;
    // Until then we would go on reading for a while, lest our last words be lost.
    drop(lost);

    let of_tls = [("listener", "secure")];
    let page = in_time("one of the two connections should be gone", async {
        loop {
            let page = metrics(&lb).await;
            if page.sum("portcullis_connections", &of_tls) < 2.0 {
                return page;
            }
        }
    });
    let page = page.await;
    let of_tls = |name| page.sum(name, &of_tls);
    assert_eq!(of_tls("portcullis_connections_accepted_total"), 2.0);
    assert_eq!(of_tls("portcullis_connections"), 1.0);
    let version = [("listener", "secure"), ("version", "TLSv1.3")];
    assert_eq!(page.value("portcullis_tls_handshakes_total", &version), Some(1.0));
    let reason = [("listener", "secure"), ("reason", "not_tls")];
    assert_eq!(page.value("portcullis_tls_handshake_failures_total", &reason), Some(1.0));
    let expiry = page.value("portcullis_certificate_expiry_timestamp_seconds", &[("certificate", "self_signed")]);
    let now = page.value("portcullis_last_reload_success_timestamp_seconds", &[]).unwrap();
    assert!((80.0..91.0).contains(&((expiry.unwrap() - now) / 86400.0)), "{expiry:?}");
}

#[tokio::test]
async fn a_certificate_from_a_file_has_its_expiry() {
    let folder = tempfile::tempdir().unwrap();
    Certificate::for_names(&["localhost"]).save(folder.path(), "site");
    let listener =
        "listeners: [{ address: 127.0.0.1:0, name: web, tls: { certificates: [{ cert: site.pem, key: site.key }] } }]";
    let lb = Lb::yaml("routes: [{ respond: { status: 200, body: hi } }]\n").yaml_section(listener);
    let lb = lb.try_start_in(folder).await.unwrap();
    let page = metrics(&lb).await;
    let expiries: Vec<_> =
        page.all("portcullis_certificate_expiry_timestamp_seconds", &[("listener", "web")]).collect();
    assert_eq!(expiries.len(), 1);
    assert!(expiries[0].labels["certificate"].ends_with("site.pem"), "{expiries:?}");
}

#[tokio::test]
async fn the_page_says_what_it_is_and_head_gets_no_body() {
    let lb = Lb::yaml("routes: [{ respond: { status: 200, body: hi } }]\n").start().await;
    let answer = Client::tcp(lb.admin_address()).await.exchange(GET).await;
    assert_eq!(answer.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut client = Client::tcp(lb.admin_address()).await;
    client.send(GET.replace("GET", "HEAD")).await;
    let head = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let post = Client::tcp(lb.admin_address()).await.exchange(GET.replace("GET", "POST")).await;
    assert_eq!((post.status, post.field("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn waits_in_the_queue_are_counted_by_how_they_ended() {
    let backend = Backend::held("late");
    let text = format!(
        "upstreams:\n  app:\n    health_check: none\n    backends: [{{ url: \"{}\", max_connections: 1 }}]\n    \
         queue: {{ timeout: 30s, size: 1 }}\nroutes: [{{ upstream: app }}]\n",
        backend.url()
    );
    let lb = Lb::yaml(text).start().await;
    let waiting = |lb: &Lb| lb.upstream("app").waiting().unwrap();
    let (mut first, mut second) = (lb.raw().await, lb.raw().await);
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    first.send(get).await;
    backend.until_requests(1).await;
    second.send(get).await;
    lb.wait_until("the second should wait", |lb| waiting(lb) == 1).await;
    let page = lb.metrics().await;
    assert_eq!(page.value("portcullis_queue_requests", &[("upstream", "app")]), Some(1.0));
    assert_eq!(page.sum("portcullis_backend_requests_in_flight", &[]), 1.0);
    assert_eq!(page.sum("portcullis_backend_requests_in_flight_limit", &[]), 1.0);
    assert_eq!(page.value("portcullis_requests_in_flight", &[]), Some(2.0));
    for _ in 0..2 {
        assert_eq!(lb.get("/").await.status, 503);
    }

    backend.release_all();
    assert_eq!([first.read_response().await.status, second.read_response().await.status], [200; 2]);
    let page = metrics(&lb).await;
    let waits = |outcome| page.sum("portcullis_queue_waits_total", &[("upstream", "app"), ("outcome", outcome)]);
    assert_eq!((waits("served"), waits("queue_full"), page.sum("portcullis_queue_requests", &[])), (1.0, 2.0, 0.0));
    assert_eq!(page.value("portcullis_queue_wait_seconds_count", &[("upstream", "app")]), Some(1.0));
}

#[tokio::test]
async fn who_is_admitted_and_why_others_are_not_is_counted() {
    let (backend, folder, key) = (Backend::answering(200, "hi"), tempfile::tempdir().unwrap(), NewKey::make());
    let entry = format!("- {{ hash: {}, name: ci }}\n", key.hash().show());
    std::fs::write(folder.path().join("keys.yaml"), entry).unwrap();
    let lb = Lb::with_backends([&backend]).yaml_section("keys: { team: { file: keys.yaml } }");
    let lb = lb.yaml_route("name: api").yaml_route("auth: { api_keys: team }").try_start_in(folder).await.unwrap();
    lb.send(&format!("GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n\r\n", key.text())).await;
    lb.get("/").await;

    let page = metrics(&lb).await;
    let admitted = |outcome| page.sum("portcullis_auth_requests_total", &[("route", "api"), ("outcome", outcome)]);
    assert_eq!((admitted("admitted"), admitted("credentials_missing")), (1.0, 1.0));
    assert_eq!(page.sum("portcullis_request_failures_total", &[("reason", "credentials_missing")]), 1.0);
    assert_eq!(page.sum("portcullis_followed_file_up", &[]), 1.0);
}

#[tokio::test]
async fn a_hedge_is_no_retry() {
    let (slow, quick) = (Backend::held("late"), Backend::answering(200, "quick"));
    let lb = Lb::yaml(format!(
        "upstreams:\n  app:\n    health_check: none\n    backends: [\"{}\", {{ url: \"{}\", backup: true }}]\n\
         routes: [{{ name: r, upstream: app, retry: {{ hedge: {{ after: 20ms }} }} }}]\n",
        slow.url(),
        quick.url()
    ));
    let lb = lb.start().await;
    assert_eq!(lb.get("/").await.body, "quick");

    let page = metrics(&lb).await;
    assert_eq!(page.value("portcullis_hedges_total", &[("route", "r")]), Some(1.0));
    assert_eq!(page.value("portcullis_retries_total", &[("route", "r")]), Some(0.0));
    assert_eq!(page.sum("portcullis_backend_attempts_total", &[("outcome", "hedged_out")]), 1.0);
    assert_eq!(page.sum("portcullis_backend_connections_total", &[("kind", "new")]), 2.0);
}

#[tokio::test]
async fn probes_and_ejections_are_counted() {
    let (bad, good) = (Backend::answering(500, "no"), Backend::answering(200, "yes"));
    let check = "health_check: { interval: 50ms }";
    let lb = Lb::with_backends([&bad, &good]).yaml_upstream(check).yaml_route("retry: none").start().await;
    lb.wait_until("both should be probed", |lb| lb.upstream("app").is_probed()).await;
    for _ in 0..20 {
        lb.get("/").await;
    }

    let page = metrics(&lb).await;
    let bad = bad.address().to_string();
    assert_eq!(page.value("portcullis_backend_ejections_total", &[("backend", &bad)]), Some(1.0));
    assert!(page.sum("portcullis_backend_probes_total", &[("backend", &bad), ("outcome", "passed")]) >= 1.0);
    assert_eq!(page.sum("portcullis_backend_state", &[("backend", &bad), ("state", "EJECTED")]), 1.0);
    let errors = page.value("portcullis_backend_errors_total", &[("backend", &bad)]);
    assert_eq!(errors, page.value("portcullis_backend_requests_total", &[("backend", &bad)]));
}

/// Where it is installed: `promtool` comes with Debian's package `prometheus`.
#[tokio::test]
async fn promtool_finds_nothing_wrong_with_a_busy_page() {
    let Ok(mut tool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        return;
    };
    let (dead, live) = (Backend::refusing(), Backend::answering(200, "hello"));
    let lb = Lb::with_backends([&dead, &live]).yaml_route("name: 'a\"b\\c'").yaml_route("cache: {}").start().await;
    for _ in 0..20 {
        lb.get("/").await;
    }
    lb.until_idle().await;
    tool.stdin.take().unwrap().write_all(lb.front().metrics().as_bytes()).unwrap();
    let said = tool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(said.status.success() && words.trim().is_empty(), "{words}");
}

#[tokio::test]
async fn an_upstream_that_nobody_serves_says_so_also_where_it_has_no_backends() {
    let (backend, empty) = (Backend::answering(200, "hello"), "discover: { register: { ttl: 60s } }");
    let yaml = format!(
        "upstreams:\n  app: {{ health_check: none, backends: ['{0}', {{ url: 'http://127.0.0.1:1', weight: 0 }}] }}\n  \
         web: {{ {empty} }}\nroutes: [{{ upstream: app }}, {{ match: {{ path: /w }}, upstream: web }}]\n",
        backend.url()
    );
    let lb = Lb::yaml(yaml).start().await;
    let page = metrics(&lb).await;
    let ready = |upstream: &str| page.sum("portcullis_upstream_backends_ready", &[("upstream", upstream)]);
    assert_eq!((ready("app"), ready("web")), (1.0, 0.0));
}
