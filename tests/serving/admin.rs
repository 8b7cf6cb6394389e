//! What operators do at the admin address while requests go on, and who may do it.

use crate::support;

use std::path::Path;

use portcullis::backend::State;
use serde_json::{Value, json};
use support::front_door::Builder;
use support::{Backend, Client, Lb, Portcullis, in_time};

const TOKEN: &str = "0123456789abcdef";

/// Asks at an admin address, with these lines more in the head.
async fn ask_at(address: std::net::SocketAddr, line: &str, more: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {length}\r\n\r\n{body}");
    let answer = Client::tcp(address).await.exchange(request).await;
    let text = answer.text();
    (answer.status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn ask(lb: &Lb, line: &str, body: &str) -> (u16, Value) {
    ask_at(lb.admin_address(), line, "", body).await
}

fn state(lb: &Lb, backend: &Backend) -> Option<State> {
    let name = backend.address().to_string();
    lb.upstream("app").members().iter().find(|it| *it.backend.name == *name).map(|it| it.backend.state())
}

fn of(backend: &Backend, what: &str) -> String {
    format!("/upstreams/app/backends/{}{what}", backend.address())
}

#[tokio::test]
async fn a_drained_backend_finishes_what_it_has_and_takes_nothing_new() {
    let (a, b) = (Backend::named("a"), Backend::held("late"));
    let lb = Lb::with_backends([&a, &b]).yaml_upstream("balance: least_connections").start().await;
    let mut waiting = Vec::new();
    while b.requests() == 0 {
        let mut client = lb.raw().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        waiting.push(client);
        support::wait_until("the request should arrive", || a.requests() + b.requests() == waiting.len()).await;
    }
    let (status, answer) = ask(&lb, &format!("POST {}", of(&b, "/drain")), "").await;
    assert_eq!((status, &answer["changed"], &answer["ready"]), (200, &json!(true), &json!(1)), "{answer}");
    assert_eq!(state(&lb, &b), Some(State::Draining));
    for _ in 0..4 {
        assert_eq!(lb.get("/").await.body, "a");
    }
    b.release();
    assert_eq!(waiting.pop().unwrap().read_response().await.body, "late");

    assert_eq!(ask(&lb, &format!("POST {}", of(&b, "/drain")), "").await.1["changed"], false);
    assert_eq!(ask(&lb, &format!("POST {}", of(&b, "/undrain")), "").await.1["changed"], true);
    assert_eq!(state(&lb, &b), Some(State::Healthy));
}

#[tokio::test]
async fn backends_are_added_weighed_and_removed_while_we_run() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let lb = Lb::with_backends([&a]).start().await;
    let entry = json!({ "url": b.address().to_string(), "weight": 2 }).to_string();
    assert_eq!(ask(&lb, "POST /upstreams/app/backends", &entry).await.0, 201);
    assert_eq!(ask(&lb, "POST /upstreams/app/backends", &entry).await.0, 409, "it is there");
    assert_eq!(ask(&lb, &format!("PUT {}", of(&a, "/weight")), r#"{ "weight": 0 }"#).await.0, 200);
    assert_eq!(lb.get("/").await.body, "b");
    assert_eq!(ask(&lb, &format!("POST {}", of(&a, "/undrain")), "").await.0, 409, "its weight is 0");
    assert_eq!(ask(&lb, &format!("DELETE {}", of(&a, "")), "").await.0, 200);
    assert_eq!(lb.upstream("app").members().len(), 1);
    let (status, problem) = ask(&lb, &format!("DELETE {}", of(&b, "")), "").await;
    assert_eq!(status, 409, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("last backend") && problem["help"].is_string());

    let same = json!(a.address().to_string()).to_string();
    assert_eq!(ask(&lb, "POST /upstreams/app/backends", &same).await.0, 201);
    assert_eq!(ask(&lb, &format!("DELETE {}", of(&b, "")), "").await.0, 200);
    assert_eq!(ask(&lb, "GET /config/differences", "").await.1["differences"], json!([]), "all is as it was");
    assert_eq!(lb.get("/").await.body, "a");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let a = Backend::named("a");
    let lb = Lb::with_backends([&a]).start().await;
    for (line, body, expected) in [
        ("POST /upstreams/none/backends/a/drain", "", 404),
        ("POST /upstreams/app/backends/none/drain", "", 404),
        ("DELETE /upstreams/app/backends/none", "", 404),
        ("POST /upstreams/none/backends", "\"10.0.0.1:80\"", 404),
        ("POST /upstreams/app/backends", "\"nonsense\"", 422),
        ("POST /upstreams/app/backends", r#"{ "url": "10.0.0.1:80", "wieght": 1 }"#, 422),
        ("POST /upstreams/app/backends", "\"unix:/run/docker.sock\"", 422),
        ("PUT /upstreams/app/backends/10.0.0.1:80", "{}", 404),
        ("POST /reload", "", 409),
        ("GET /config?form=toml", "", 400),
    ] {
        let (status, problem) = ask(&lb, line, body).await;
        assert_eq!(status, expected, "{line}: {problem}");
        assert!(problem["help"].as_str().is_some_and(|help| !help.is_empty()), "{problem}");
    }
    assert_eq!(ask(&lb, "GET /config/differences", "").await.1["differences"], json!([]));
}

#[tokio::test]
async fn changes_stay_over_a_reload_and_end_when_they_are_undone() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let lb = Lb::with_backends([&a, &b]).start().await;
    ask(&lb, &format!("POST {}", of(&a, "/drain")), "").await;
    ask(&lb, "POST /upstreams/app/backends", &json!(c.address().to_string()).to_string()).await;
    let known = lb.upstream("app").members()[0].backend.clone();

    lb.reload(Lb::with_backends([&a]).yaml_upstream("slow_start: 1ms")).await.unwrap();
    assert_eq!((state(&lb, &a), state(&lb, &b), state(&lb, &c)), (Some(State::Draining), None, Some(State::Healthy)));
    assert!(std::sync::Arc::ptr_eq(&lb.upstream("app").members()[0].backend, &known), "with all that is known of it");
    let told = ask(&lb, "GET /config/differences", "").await.1;
    let words: Vec<_> = told["differences"].as_array().unwrap().iter().map(|it| it["what"].as_str().unwrap()).collect();
    assert_eq!(words, ["added", "drained"]);
    let yaml = ask(&lb, "GET /config/differences?form=yaml", "").await.1;
    let yaml = yaml.as_str().unwrap();
    assert!(yaml.contains(&format!("url: {}\n        weight: 0", a.url())), "{yaml}");

    assert_eq!(ask(&lb, "DELETE /config/differences", "").await, (200, json!({ "differences": [] })));
    assert_eq!((state(&lb, &a), state(&lb, &c)), (Some(State::Healthy), None));
}

#[tokio::test]
async fn who_has_registered_can_be_drained_and_leaves_by_its_address() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let upstream = "upstreams:\n  app: { health_check: none, discover: { register: { ttl: 60s } } }\n";
    let lb = Lb::yaml(format!("{upstream}routes: [{{ upstream: app }}]\n")).start().await;
    for backend in [&a, &b] {
        assert_eq!(ask(&lb, &format!("PUT {}", of(backend, "")), "").await.0, 201);
    }
    lb.wait_until("both should be there", |lb| lb.upstream("app").members().len() == 2).await;
    assert_eq!(ask(&lb, &format!("POST {}", of(&a, "/drain")), "").await.0, 200);
    assert_eq!(lb.get("/").await.body, "b");
    assert_eq!(ask(&lb, &format!("DELETE {}", of(&a, "")), "").await.1["left"], true);
    lb.wait_until("it should have left", |lb| state(lb, &a).is_none()).await;
    ask(&lb, &format!("PUT {}", of(&a, "")), "").await;
    lb.wait_until("it should be drained still", |lb| state(lb, &a) == Some(State::Draining)).await;
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    let a = Backend::named("a");
    let lb = Lb::with_backends([&a]).start().await;
    for more in [
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Origin: http://localhost:3000\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
    ] {
        let (status, _) = ask_at(lb.admin_address(), &format!("POST {}", of(&a, "/drain")), more, "").await;
        assert_eq!(status, 403, "{more}");
    }
    let rebound = format!("POST {} HTTP/1.1\r\nHost: evil.example\r\n\r\n", of(&a, "/drain"));
    assert_eq!(Client::tcp(lb.admin_address()).await.exchange(rebound).await.status, 403);
    let preflight = "OPTIONS /reload HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n";
    let answer = Client::tcp(lb.admin_address()).await.exchange(preflight).await;
    assert_eq!((answer.status, answer.field("access-control-allow-origin")), (403, None));
    assert_eq!(state(&lb, &a), Some(State::Healthy));
}

fn guarded(backend: &Backend, admin: &str) -> Builder {
    Lb::with_backends([backend]).yaml_section(&format!("admin: {{ {admin} }}"))
}

async fn status_with(lb: &Lb, token: &str) -> u16 {
    ask_at(lb.admin_address(), "GET /status.json", &format!("Authorization: Bearer {token}\r\n"), "").await.0
}

#[tokio::test]
async fn a_token_is_changed_by_a_reload_and_never_lost_by_one() {
    let a = Backend::named("a");
    let lb = guarded(&a, &format!("address: 127.0.0.1:0, token: {TOKEN}")).start().await;
    assert_eq!((status_with(&lb, TOKEN).await, status_with(&lb, "another").await), (200, 401));
    assert_eq!(ask(&lb, "GET /healthz", "").await.0, 200);
    lb.reload(guarded(&a, "address: 127.0.0.1:0, token: fedcba9876543210")).await.unwrap();
    assert_eq!((status_with(&lb, TOKEN).await, status_with(&lb, "fedcba9876543210").await), (401, 200));
    // The address stays what it was until a restart; without its token it would stand open.
    let done = lb.reload(guarded(&a, "address: 127.0.0.1:1")).await.unwrap();
    assert_eq!(done.needs_restart, ["admin.address"]);
    assert_eq!(ask(&lb, "GET /status.json", "").await.0, 401);
}

#[tokio::test]
async fn no_secret_is_in_what_is_shown() {
    let a = Backend::named("a");
    let more = "server: { secret: \"the secret of all cookies\" }";
    let lb = guarded(&a, &format!("address: 127.0.0.1:0, token: {TOKEN}")).yaml_section(more).start().await;
    for path in ["/config", "/config?form=yaml", "/config/differences", "/status.json", "/openapi.json"] {
        let more = format!("Authorization: Bearer {TOKEN}\r\n");
        let (status, answer) = ask_at(lb.admin_address(), &format!("GET {path}"), &more, "").await;
        let text = answer.to_string();
        assert!(status == 200 && !text.contains(TOKEN) && !text.contains("of all cookies"), "{path}: {text}");
    }
}

/// The next event of a stream: its kind, and what it says.
async fn event(client: &mut Client, pending: &mut String) -> (String, Value) {
    loop {
        if let Some((event, rest)) = pending.split_once("\n\n") {
            let field =
                |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
            let found = (field("event: "), serde_json::from_str(&field("data: ")).unwrap_or_default());
            *pending = rest.to_owned();
            return found;
        }
        let bytes = client.read_some().await.unwrap();
        assert!(!bytes.is_empty(), "the stream ended");
        pending.push_str(std::str::from_utf8(&bytes).unwrap());
    }
}

#[tokio::test]
async fn whoever_listens_hears_everything_first_and_then_what_changes() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let lb = Lb::with_backends([&a, &b]).start().await;
    let mut client = Client::tcp(lb.admin_address()).await;
    client.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = client.read_head().await;
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    let mut pending = String::new();
    let (kind, first) = event(&mut client, &mut pending).await;
    assert_eq!((kind.as_str(), first["upstreams"][0]["backends"].as_array().unwrap().len()), ("state", 2));

    ask(&lb, &format!("POST {}", of(&b, "/drain")), "").await;
    let name = b.address().to_string();
    loop {
        let (kind, change) = event(&mut client, &mut pending).await;
        assert_eq!(kind, "change");
        let Some(changed) = change["upstreams"][0]["backends"].as_array() else { continue };
        assert_eq!((changed.len(), &changed[0]["name"]), (1, &json!(name)), "and nobody else: {change}");
        assert_eq!((&changed[0]["state"], &changed[0]["changed"]), (&json!("DRAINING"), &json!(["drained"])));
        break;
    }
    lb.shutdown().await;
    while client.read_some().await.is_ok_and(|bytes| !bytes.is_empty()) {}
}

#[tokio::test]
async fn the_status_has_what_requests_have_left_behind() {
    let (a, b) = (Backend::named("a"), Backend::answering(500, "no"));
    let lb = Lb::with_backends([&a, &b]).yaml_upstream("passive_health: none").start().await;
    for _ in 0..8 {
        lb.get("/").await;
    }
    let status = ask(&lb, "GET /status.json", "").await.1;
    let [good, bad] = [0, 1].map(|index| &status["upstreams"][0]["backends"][index]);
    assert_eq!((&good["requests"], &good["errors"], &bad["errors"]), (&json!(4), &json!(0), &json!(4)), "{status:#}");
    assert!(good["p50_ms"].is_number() && bad["last_error"]["what"] == "status 500", "{status:#}");
    assert!(status["certificates"][0]["days_left"].as_i64().is_some_and(|days| days > 80), "{status:#}");
    assert_eq!(status["readiness"], json!({ "ready": true, "why": null }));
}

/// The program, with a file that is only read when it is asked to; and where its admin address is.
async fn program(more: &str) -> (Portcullis, std::net::SocketAddr) {
    let program = Portcullis::run(&file("127.0.0.1:0", more));
    let line = program.line_with("admin API").await;
    (program, line.rsplit(' ').next().unwrap().parse().unwrap())
}

fn file(admin: &str, more: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: \"{admin}\" }}\n\
         server: {{ reload: {{ watch: false }} }}\nlog: {{ access: none, dashboard: none }}\n\
         upstreams:\n  app: {{ health_check: none, backends: [\"10.0.0.1:80\", \"10.0.0.2:80\"] }}\n  \
         web: {{ health_check: none, discover: {{ register: {{ ttl: 60s }} }} }}\n\
         routes: [{{ name: all, upstream: app, cache: {{}}, rate_limits: [{{ rate: 100/s }}] }}]\n{more}"
    )
}

fn rewrite(path: &Path, admin: &str, from: &str, to: &str) {
    std::fs::write(path, file(admin, "").replace(from, to)).unwrap();
}

#[tokio::test]
async fn a_reload_that_is_asked_for_answers_with_what_came_of_it() {
    let (program, admin) = program("").await;
    rewrite(&program.file(), "127.0.0.1:0", "\"10.0.0.2:80\"]", "\"10.0.0.3:80\"]");
    let (status, done) = ask_at(admin, "POST /reload", "", "").await;
    let first = "upstreams.app.backends[10.0.0.3:80]: added { url: 10.0.0.3:80 }";
    let changes = json!([first, "upstreams.app.backends[10.0.0.2:80]: removed"]);
    assert_eq!((status, &done["changes"]), (200, &changes), "{done}");

    rewrite(&program.file(), "127.0.0.1:0", "upstream: app", "upstream: appp");
    let (status, problem) = ask_at(admin, "POST /reload", "", "").await;
    assert_eq!((status, &problem["problems"][0]["key"]), (422, &json!("routes[0].upstream")), "{problem}");
    assert!(problem["problems"][0]["line"].as_u64() > Some(1) && problem["problems"][0]["help"].is_string());
    let now = ask_at(admin, "GET /status.json", "", "").await.1;
    assert!(now["configuration"]["problem"].as_str().is_some_and(|why| why.contains("appp")), "{now:#}");

    rewrite(&program.file(), "127.0.0.1:0", "10.0.0.2", "10.0.0.2");
    assert_eq!(ask_at(admin, "POST /reload", "", "").await.0, 200);
    assert_eq!(ask_at(admin, "GET /status.json", "", "").await.1["configuration"]["problem"], Value::Null);
}

#[tokio::test]
async fn each_change_is_logged_with_who_made_it() {
    let (program, admin) = program("").await;
    ask_at(admin, "POST /upstreams/app/backends/10.0.0.1:80/drain", "", "").await;
    program.line_with("upstream app: backend 10.0.0.1:80: 127.0.0.1:").await;
    program.line_with("drained it").await;
    program.line_with("backend 10.0.0.1:80 is DRAINING: an operator drains it").await;
    ask_at(admin, "PUT /log/level", "", r#"{ "level": "warn" }"#).await;
    program.line_with("set the log to warn").await;
    let told = ask_at(admin, "GET /config/differences", "", "").await.1;
    let level = json!({ "upstream": null, "backend": null, "what": "log_level", "file": "info", "now": "warn" });
    assert_eq!(told["differences"][1], level, "{told:#}");
    let yaml = ask_at(admin, "GET /config/differences?form=yaml", "", "").await.1;
    assert!(yaml.as_str().unwrap().ends_with("log:\n  level: warn\n"), "{yaml}");
    ask_at(admin, "POST /upstreams/app/backends/10.0.0.1:80/undrain", "", "").await;
    ask_at(admin, "PUT /log/level", "", r#"{ "level": "info" }"#).await;
    ask_at(admin, "POST /upstreams/app/backends/10.0.0.2:80/drain", "", "").await;
    program.line_with("backend 10.0.0.2:80 is DRAINING").await;
    assert!(!program.lines().iter().any(|line| line.contains("undrained it")), "the log was at warn");
}

/// One request for each operation of the document, in an order in which all can be done.
const WALK: &[(&str, &str, &str, &str)] = &[
    ("GET", "/healthz", "/healthz", ""),
    ("GET", "/readyz", "/readyz", ""),
    ("GET", "/", "/", ""),
    ("GET", "/page.css", "/page.css", ""),
    ("GET", "/page.js", "/page.js", ""),
    ("GET", "/rows.js", "/rows.js", ""),
    ("GET", "/theme.js", "/theme.js", ""),
    ("GET", "/icon.svg", "/icon.svg", ""),
    ("GET", "/metrics", "/metrics", ""),
    ("GET", "/openapi.json", "/openapi.json", ""),
    ("POST", "/upstreams/{upstream}/backends", "/upstreams/app/backends", "\"10.0.0.3:80\""),
    ("PUT", "/upstreams/{upstream}/backends/{backend}", "/upstreams/web/backends/10.0.0.4:80", "{}"),
    ("POST", "/upstreams/{upstream}/backends/{backend}/drain", "/upstreams/app/backends/10.0.0.1:80/drain", ""),
    ("GET", "/config/differences", "/config/differences", ""),
    ("GET", "/config/differences", "/config/differences?form=yaml", ""),
    ("POST", "/upstreams/{upstream}/backends/{backend}/undrain", "/upstreams/app/backends/10.0.0.1:80/undrain", ""),
    (
        "PUT",
        "/upstreams/{upstream}/backends/{backend}/weight",
        "/upstreams/app/backends/10.0.0.1:80/weight",
        "{\"weight\":2}",
    ),
    ("DELETE", "/upstreams/{upstream}/backends/{backend}", "/upstreams/app/backends/10.0.0.2:80", ""),
    ("DELETE", "/config/differences", "/config/differences", ""),
    ("POST", "/reload", "/reload", ""),
    ("PUT", "/log/level", "/log/level", "{\"level\":\"debug\"}"),
    ("GET", "/status.json", "/status.json", ""),
    ("GET", "/config", "/config", ""),
    ("GET", "/config", "/config?form=yaml", ""),
    ("GET", "/cache", "/cache", ""),
    ("POST", "/cache/purge", "/cache/purge?all=true", ""),
    ("GET", "/events", "/events", ""),
];

/// The required keys of a schema that a value lacks, anywhere within it.
fn lacks(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        return lacks(document, document.pointer(name.trim_start_matches('#')).unwrap(), value, at);
    }
    if value.is_null() {
        return Vec::new();
    }
    let first = schema["anyOf"].get(0).map(|first| lacks(document, first, value, at));
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing = required.filter(|key| value.get(key).is_none()).map(|key| format!("{at}.{key}"));
    let below = schema["properties"].as_object().into_iter().flatten().flat_map(|(key, schema)| {
        value.get(key).map(|value| lacks(document, schema, value, &format!("{at}.{key}"))).unwrap_or_default()
    });
    let items = value.as_array().into_iter().flatten();
    let items = items.flat_map(|item| lacks(document, &schema["items"], item, &format!("{at}[]")));
    missing.chain(below).chain(items).chain(first.into_iter().flatten()).collect()
}

#[tokio::test]
async fn every_operation_of_the_document_answers_as_it_says() {
    let (_program, admin) = program("").await;
    let document = ask_at(admin, "GET /openapi.json", "", "").await.1;
    let mut documented: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |it| (it.to_uppercase(), path.clone()))
        })
        .collect();
    for (method, path, target, body) in WALK {
        documented.retain(|known| *known != ((*method).to_owned(), (*path).to_owned()));
        let operation = &document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not in the document");
        let length = body.len();
        let request =
            format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        let mut client = Client::tcp(admin).await;
        client.send(request).await;
        let (status, kind, text) = if *path == "/events" {
            let head = client.read_head().await;
            (200, head.field("content-type").unwrap().to_owned(), String::new())
        } else {
            let answer = client.read_response().await;
            (answer.status, answer.field("content-type").unwrap().to_owned(), answer.text())
        };
        let content = &operation["responses"][status.to_string()]["content"];
        let kind = kind.split(';').next().unwrap();
        // Nobody has registered yet, which that one says.
        let done = (200..300).contains(&status) || *path == "/readyz";
        assert!(done, "{method} {target}: {status} {text}");
        assert!(content[kind].is_object(), "{method} {target}: {status} {kind} is not documented");
        if kind == "application/json" {
            let value = serde_json::from_str(&text).unwrap();
            let missing = lacks(&document, &content[kind]["schema"], &value, "");
            assert_eq!(missing, [""; 0], "{method} {target}: {value:#}");
        }
    }
    assert_eq!(documented, [], "operations that nobody has tried");
}

#[tokio::test]
async fn what_is_in_effect_shows_what_was_changed_and_discovered() {
    let (_program, admin) = program("").await;
    ask_at(admin, "PUT /upstreams/web/backends/10.0.0.9:80", "", "{}").await;
    ask_at(admin, "PUT /upstreams/app/backends/10.0.0.1:80/weight", "", "{\"weight\":7}").await;
    let urls = async || {
        let config = ask_at(admin, "GET /config", "", "").await.1;
        assert_eq!(config["upstreams"]["app"]["backends"][0]["weight"], 7);
        assert_eq!(config["server"]["grace_period"], "20s", "with its defaults");
        config["upstreams"]["web"]["backends"][0]["url"].clone()
    };
    let mut found = urls().await;
    while found != json!("10.0.0.9:80") {
        in_time("who has registered should be there", tokio::task::yield_now()).await;
        found = urls().await;
    }
}
