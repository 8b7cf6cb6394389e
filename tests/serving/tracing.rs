//! Traces through the front door: who continues which, what a backend is told, and what reaches a collector.

use crate::support;

use std::time::Duration;

use serde_json::Value;
use support::backend::response;
use support::front_door::Builder;
use support::{Act, Backend, Client, Lb, Script, wait_for};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn traced(backends: &[&Backend], collector: &Backend, more: &str) -> Builder {
    let url = collector.url();
    Lb::with_backends(backends.iter().copied())
        .yaml_route("name: shop")
        .yaml_section(&format!("tracing: {{ otlp: \"{url}/v1/traces\", {more} }}"))
}

fn get(lines: &str) -> String {
    format!("GET /cart?token=secret HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

fn parent(flags: &str) -> String {
    get(&format!("traceparent: 00-{TRACE}-{SPAN}-{flags}\r\ntracestate: a=b\r\n"))
}

/// All spans that the collector has got, once there are so many.
async fn spans(collector: &Backend, count: usize) -> Vec<Value> {
    let got = || {
        let spans: Vec<_> = collector.received().iter().flat_map(|request| spans_of(&request.body.content)).collect();
        (spans.len() >= count).then_some(spans)
    };
    wait_for(&format!("the collector should have {count} spans"), got).await
}

fn spans_of(body: &[u8]) -> Vec<Value> {
    let request: Value = serde_json::from_slice(body).unwrap();
    let resource = &request["resourceSpans"][0];
    assert_eq!(attribute(&resource["resource"], "service.name"), "portcullis");
    assert_eq!(resource["scopeSpans"][0]["scope"]["name"], "portcullis");
    resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn attribute(of: &Value, key: &str) -> Value {
    let found = of["attributes"].as_array().unwrap().iter().find(|it| it["key"] == key);
    let value = found.map(|it| it["value"].as_object().unwrap().values().next().unwrap().clone());
    value.unwrap_or(Value::Null)
}

/// The trace, the span and the flags that a backend was told.
fn told(backend: &Backend, request: usize) -> [String; 3] {
    let received = &backend.received()[request];
    let field = received.head.field("traceparent").expect("a traceparent");
    let parts: Vec<_> = field.split('-').map(str::to_owned).collect();
    assert_eq!((parts.len(), parts[0].as_str()), (4, "00"), "{field}");
    [parts[1].clone(), parts[2].clone(), parts[3].clone()]
}

#[tokio::test]
async fn a_trace_goes_on_from_the_client_to_the_backend_and_to_the_collector() {
    let (backend, collector) = (Backend::answering(201, "made it"), Backend::answering(200, "{}"));
    let lb = traced(&[&backend], &collector, "from: any").start().await;
    assert_eq!(lb.send(&parent("01")).await.status, 201);

    let [trace, span, flags] = told(&backend, 0);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "01"));
    assert_eq!(backend.only_request().head.field("tracestate"), Some("a=b"));
    let spans = spans(&collector, 2).await;
    let (server, client) = (&spans[0], &spans[1]);
    assert_eq!(
        (&server["traceId"], &server["parentSpanId"], &server["kind"]),
        (&TRACE.into(), &SPAN.into(), &2.into())
    );
    assert_eq!(server["name"], "GET shop");
    assert_eq!((&client["traceId"], &client["spanId"], &client["kind"]), (&TRACE.into(), &span.into(), &3.into()));
    assert_eq!(client["parentSpanId"], server["spanId"]);
    for (of, key, expected) in [
        (server, "http.request.method", "GET"),
        (server, "url.path", "/cart"),
        (server, "url.scheme", "http"),
        (server, "server.address", "localhost"),
        (server, "client.address", "127.0.0.1"),
        (server, "network.protocol.version", "1.1"),
        (server, "http.response.status_code", "201"),
        (server, "http.response.body.size", "7"),
        (client, "http.response.status_code", "201"),
        (client, "server.address", "127.0.0.1"),
        (client, "portcullis.upstream", "app"),
    ] {
        assert_eq!(attribute(of, key), expected, "{key}");
    }
    let nanos = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanos(server, "startTimeUnixNano") <= nanos(client, "startTimeUnixNano"));
    assert!(nanos(client, "endTimeUnixNano") > nanos(client, "startTimeUnixNano"));
    assert!(server.get("status").is_none() && client.get("status").is_none());
    let bytes = String::from_utf8_lossy(&collector.received()[0].body.content).into_owned();
    assert!(!bytes.contains("secret"), "{bytes}");
    let head = &collector.received()[0].head;
    assert_eq!(head.first_line, "POST /v1/traces HTTP/1.1");
    assert_eq!(head.field("content-type"), Some("application/json"));
    let told = || lb.front().metrics().contains("portcullis_trace_spans_total{outcome=\"exported\"} 2\n");
    wait_for("both spans should be counted", || told().then_some(())).await;
    let line = &lb.access_log(1).await[0];
    assert_eq!((&line["trace_id"], &line["id"]), (&TRACE.into(), &attribute(server, "portcullis.request_id")));
}

#[tokio::test]
async fn each_attempt_has_a_span_of_its_own() {
    let failing = Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(response(503, &[], ""))]]));
    let (dead, collector) = (Backend::refusing(), Backend::answering(200, "{}"));
    let lb = traced(&[&failing, &dead], &collector, "sample: 100%").start().await;
    assert_eq!(lb.send(&get("")).await.status, 503);

    let attempts = lb.access_log(1).await[0]["attempts"].as_array().unwrap().len();
    let spans = spans(&collector, attempts + 1).await;
    let clients: Vec<_> = spans.iter().filter(|span| span["kind"] == 3).collect();
    assert_eq!(clients.len(), attempts);
    let mut ids: Vec<_> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), attempts + 1);
    assert!(clients.iter().all(|span| span["status"]["code"] == 2), "{clients:#?}");
    assert_eq!(attribute(&spans[0], "error.type"), "503");
    assert!(clients.iter().any(|span| attribute(span, "error.type") == "connect_refused" || attempts == 1));
    let [_, told_span, _] = told(&failing, 0);
    assert!(ids.contains(&told_span.as_str()));
}

#[tokio::test]
async fn a_flag_of_somebody_who_is_not_trusted_decides_nothing() {
    let (backend, collector) = (Backend::answering(200, "hello"), Backend::answering(200, "{}"));
    let lb = traced(&[&backend], &collector, "sample: 0%").start().await;
    lb.send(&parent("01")).await;
    let [trace, span, flags] = told(&backend, 0);
    assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"), "the trace goes on, and is not told");
    assert_ne!(span, SPAN);
    let log = lb.access_log(1).await;
    assert_eq!(log[0]["trace_id"], TRACE);
    assert!(lb.shutdown().await);
    assert_eq!(collector.requests(), 0);
}

#[tokio::test]
async fn what_is_no_trace_is_replaced_by_one_of_ours() {
    let (backend, collector) = (Backend::answering(200, "hello"), Backend::answering(200, "{}"));
    let lb = traced(&[&backend], &collector, "sample: 0%").start().await;
    let forged = format!("traceparent: 00-{TRACE}-{SPAN}-01-x\r\ntracestate: a=b\r\n");
    lb.send(&get(&forged)).await;
    let [trace, ..] = told(&backend, 0);
    assert_ne!(trace, TRACE);
    assert_eq!(backend.only_request().head.field("tracestate"), None);
    assert_eq!(lb.access_log(1).await[0]["trace_id"], trace.as_str());
}

#[tokio::test]
async fn without_tracing_the_fields_pass_untouched() {
    let backend = Backend::answering(200, "hello");
    let lb = Lb::with_backends([&backend]).start().await;
    lb.send(&parent("01")).await;
    let request = backend.only_request();
    assert_eq!(request.head.field("traceparent"), Some(format!("00-{TRACE}-{SPAN}-01").as_str()));
    assert_eq!(request.head.field("tracestate"), Some("a=b"));
    assert_eq!(lb.access_log(1).await[0]["trace_id"], Value::Null);
}

#[tokio::test]
async fn what_waits_is_sent_before_the_end() {
    let (backend, collector) = (Backend::answering(200, "hello"), Backend::answering(200, "{}"));
    let lb = traced(&[&backend], &collector, "sample: 100%").start().await;
    for _ in 0..3 {
        lb.get("/").await;
    }
    assert!(lb.shutdown().await);
    let sent: usize = collector.received().iter().map(|request| spans_of(&request.body.content).len()).sum();
    assert_eq!(sent, 6);
}

#[tokio::test]
async fn a_collector_that_is_away_delays_nobody_and_costs_a_count() {
    let (backend, collector) = (Backend::answering(200, "hello"), Backend::answering(400, "no"));
    let lb = traced(&[&backend], &collector, "sample: 100%").start().await;
    assert_eq!(lb.get("/").await.status, 200);
    let dropped = || {
        let page = support::Exposition::read(&lb.front().metrics());
        page.value("portcullis_trace_spans_total", &[("outcome", "dropped")]).filter(|dropped| *dropped > 0.0)
    };
    assert_eq!(wait_for("the spans should be dropped", dropped).await, 2.0);
    let hanging = Backend::hanging();
    lb.reload(traced(&[&backend], &hanging, "sample: 100%")).await.unwrap();
    let (mut client, began) = (Client::tcp(lb.address(0)).await, std::time::Instant::now());
    for _ in 0..50 {
        assert_eq!(client.exchange(get("")).await.status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_token_is_shown_to_the_collector_alone() {
    let (backend, collector) = (Backend::answering(200, "hello"), Backend::answering(200, "{}"));
    let lb = traced(&[&backend], &collector, "sample: 100%, token: 0123456789abcdef").start().await;
    lb.get("/").await;
    spans(&collector, 2).await;
    assert_eq!(collector.received()[0].head.field("authorization"), Some("Bearer 0123456789abcdef"));
    assert_eq!(backend.only_request().head.field("authorization"), None);
}

#[tokio::test]
async fn a_collector_over_tls_is_believed_by_its_authority() {
    let takes = Script::each([vec![Act::ReadBody, Act::Write(response(200, &[], "{}"))]]);
    let (backend, collector) = (Backend::answering(200, "hello"), Backend::over_tls(takes));
    let folder = tempfile::tempdir().unwrap();
    let (ca, _) = collector.certificate().save(folder.path(), "collector");
    let lb = traced(&[&backend], &collector, &format!("sample: 100%, ca: '{}'", ca.display())).start().await;
    lb.get("/").await;
    assert_eq!(spans(&collector, 2).await.len(), 2);
}
