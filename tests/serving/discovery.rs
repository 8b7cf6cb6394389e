//! Backends that come and go by themselves: from every place that can be asked, also when it lies.

use crate::support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use portcullis::backend::State;
use support::front_door::Builder;
use support::{Backend, Client, Lb, Portcullis, in_time};
use tempfile::TempDir;

/// An upstream that discovers its backends, and a route to it.
fn app(keys: &str) -> Builder {
    Lb::yaml(format!("upstreams:\n  app: {{ health_check: none, {keys} }}\nroutes: [{{ upstream: app }}]\n"))
}

/// The names of the members.
fn members(lb: &Lb) -> BTreeSet<String> {
    lb.upstream("app").members().iter().map(|member| member.backend.name.to_string()).collect()
}

async fn until_members(lb: &Lb, expected: &[&Backend]) {
    let expected: BTreeSet<_> = expected.iter().map(|backend| backend.address().to_string()).collect();
    lb.wait_until(&format!("the members should be {expected:?}"), |lb| members(lb) == expected).await;
}

async fn readiness(lb: &Lb) -> u16 {
    Client::tcp(lb.admin_address()).await.exchange("GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await.status
}

fn write(path: &Path, list: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, list).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

fn list(backends: &[&Backend]) -> String {
    format!("{:?}", backends.iter().map(|backend| backend.address().to_string()).collect::<Vec<_>>())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The program, whose log can be read, with an upstream that discovers its backends; and where it listens.
async fn program(folder: TempDir, keys: &str) -> (Portcullis, SocketAddr) {
    let file = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams:\n  app: {{ health_check: none, {keys} }}\n\
         routes: [{{ upstream: app }}]\nadmin: {{ address: 127.0.0.1:0 }}\nlog: {{ access: none, dashboard: none }}\n"
    );
    std::fs::write(folder.path().join("portcullis.yaml"), file).unwrap();
    let program = Portcullis::start(folder, &["run", "-c", "portcullis.yaml"]);
    let line = program.line_with("listening on ").await;
    (program, line.rsplit(' ').next().unwrap().parse().unwrap())
}

mod file {
    use super::*;

    const FROM_FILE: &str = "discover: { file: list.yaml }";

    #[tokio::test]
    async fn who_is_in_the_list_serves_and_who_leaves_it_drains() {
        let (a, b) = (Backend::named("a"), Backend::held("late"));
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("list.yaml"), &list(&[&b]));
        let lb = app(FROM_FILE).try_start_in(folder).await.unwrap();
        assert_eq!(readiness(&lb).await, 200);
        let mut waiting = lb.raw().await;
        waiting.send(GET).await;
        b.until_requests(1).await;

        write(&lb.folder().join("list.yaml"), &format!("- {}\n", a.address()));
        until_members(&lb, &[&a]).await;

        assert_eq!(lb.get("/").await.body, "a");
        assert_eq!(lb.upstream("app").leavers().len(), 1);
        b.release();
        assert_eq!(waiting.read_response().await.body, "late");
    }

    #[tokio::test]
    async fn a_list_that_is_half_written_empty_or_gone_takes_nobody_away() {
        let [a, b] = ["a", "b"].map(Backend::named);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.yaml");
        write(&path, &list(&[&a, &b]));
        let (program, address) = program(folder, FROM_FILE).await;
        let bad = [&list(&[&a, &b])[..20], "", "[]", "- nonsense\n", "{ a: b }", "gone"];
        for (turn, bad) in (1..).zip(bad) {
            match bad {
                "gone" => std::fs::remove_file(&path).unwrap(),
                bad => std::fs::write(&path, bad).unwrap(),
            }
            program.lines_with("upstream app: discovery fails, backends kept: 2: ", turn).await;
            let mut client = Client::tcp(address).await;
            let served: BTreeSet<_> = [client.exchange(GET).await.text(), client.exchange(GET).await.text()].into();
            assert_eq!(served.len(), 2, "{bad:?}");
            write(&path, &list(&[&a, &b]));
            program.lines_with("upstream app: discovery works again", turn).await;
        }
        write(&path, &format!("[{}, nonsense, {{ url: \"{}\", tier: 1 }}, unix:/x/y]", a.address(), b.address()));
        program.line_with("upstream app: discovery skips entries: 1, the first: [1]: `nonsense` has no port").await;
        assert_eq!(program.lines().iter().filter(|line| line.contains("discovery fails")).count(), bad.len());
    }

    #[tokio::test]
    async fn a_reload_keeps_what_was_discovered_and_other_upstreams_are_not_touched() {
        let [a, b, c] = ["a", "b", "c"].map(Backend::named);
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("list.yaml"), &list(&[&b]));
        let file = |more: &str| {
            Lb::yaml(format!(
                "upstreams:\n  app: {{ health_check: none, backends: [\"{}\"], {FROM_FILE}{more} }}\n  \
                 other: {{ health_check: none, backends: [\"{}\"] }}\n\
                 routes: [{{ upstream: app }}, {{ match: {{ path: /other }}, upstream: other }}]\n",
                a.address(),
                c.address()
            ))
        };
        let lb = file("").try_start_in(folder).await.unwrap();
        until_members(&lb, &[&a, &b]).await;
        let other = lb.upstream("other");
        let known = lb.upstream("app").members()[1].backend.clone();

        std::fs::remove_file(lb.folder().join("list.yaml")).unwrap();
        lb.reload(file(", slow_start: 1h")).await.unwrap();
        until_members(&lb, &[&a, &b]).await;
        assert!(std::sync::Arc::ptr_eq(&lb.upstream("app").members()[1].backend, &known));

        write(&lb.folder().join("list.yaml"), &list(&[&b, &c]));
        until_members(&lb, &[&a, &b, &c]).await;
        assert!(std::sync::Arc::ptr_eq(&lb.upstream("other"), &other));
        // Who joins gets a tenth.
        let mut client = lb.raw().await;
        for _ in 0..105 {
            assert_eq!(client.exchange(GET).await.status, 200);
        }
        assert_eq!([a.requests(), b.requests(), c.requests()], [50, 50, 5]);
    }

    #[tokio::test]
    async fn who_comes_while_a_certificate_is_broken_is_taken_in() {
        let [a, b] = ["a", "b"].map(Backend::named);
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("list.yaml"), &list(&[&a]));
        let ca = rcgen::generate_simple_self_signed(Vec::new()).unwrap();
        write(&folder.path().join("ca.pem"), &ca.cert.pem());
        let lb = app(&format!("{FROM_FILE}, tls: {{ ca: ca.pem }}")).try_start_in(folder).await.unwrap();
        until_members(&lb, &[&a]).await;

        write(&lb.folder().join("ca.pem"), "half of a certif");
        write(&lb.folder().join("list.yaml"), &list(&[&a, &b]));

        until_members(&lb, &[&a, &b]).await;
    }

    #[tokio::test]
    async fn a_start_without_the_list_waits_for_it_and_is_not_ready() {
        let a = Backend::named("a");
        let lb = app(FROM_FILE).start().await;
        assert_eq!(readiness(&lb).await, 503);
        assert_eq!(lb.get("/").await.status, 503);

        write(&lb.folder().join("list.yaml"), &list(&[&a]));

        until_members(&lb, &[&a]).await;
        assert_eq!((readiness(&lb).await, lb.get("/").await.status), (200, 200));
        assert_eq!(lb.upstream("app").members()[0].backend.state(), State::Healthy);
    }
}

mod dns {
    use super::*;
    use support::dns::{DnsServer, Says, addresses};

    fn from_dns(dns: &DnsServer, port: u16) -> String {
        let server = dns.address();
        format!("discover: {{ dns: \"app.internal:{port}\", server: \"{server}\", interval: 50ms }}")
    }

    fn at(ips: &[&str], port: u16) -> BTreeSet<String> {
        ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port).to_string()).collect()
    }

    #[tokio::test]
    async fn each_address_is_a_backend_and_who_leaves_dns_leaves() {
        let a = Backend::named("a");
        let port = a.address().port();
        let dns = DnsServer::saying(addresses("app.internal", &["127.0.0.1"], 0)).await;
        let lb = app(&from_dns(&dns, port)).start().await;
        assert_eq!(lb.get("/").await.body, "a");

        dns.say(addresses("app.internal", &["127.0.0.1", "127.0.0.2", "::1"], 0));
        let all = at(&["127.0.0.1", "127.0.0.2", "::1"], port);
        lb.wait_until("all addresses should be members", |lb| members(lb) == all).await;

        dns.say(addresses("app.internal", &["127.0.0.1"], 0));
        lb.wait_until("one should be left", |lb| members(lb) == at(&["127.0.0.1"], port)).await;
        assert_eq!(lb.get("/").await.body, "a");
    }

    #[tokio::test]
    async fn dns_that_fails_says_nothing_or_lies_takes_nobody_away() {
        let a = Backend::named("a");
        let good = addresses("app.internal", &["127.0.0.1"], 0);
        let dns = DnsServer::saying(good.clone()).await;
        let keys = from_dns(&dns, a.address().port());
        let (program, address) = program(tempfile::tempdir().unwrap(), &keys).await;
        let nobody = Says::Records(Vec::new(), 0);
        let other = addresses("evil.internal", &["127.0.0.9"], 0);
        let bad = [Says::Failure, Says::NoName, nobody, other, Says::Garbage, Says::Nothing];
        for (turn, bad) in (1..).zip(bad) {
            dns.say(bad.clone());
            program.lines_with("upstream app: discovery fails, backends kept: 1: ", turn).await;
            assert_eq!(Client::tcp(address).await.exchange(GET).await.body, "a", "{bad:?}");
            dns.say(good.clone());
            program.lines_with("upstream app: discovery works again", turn).await;
        }
        assert!(!program.lines().iter().any(|line| line.contains("127.0.0.9")));
    }

    #[tokio::test]
    async fn dns_that_says_everything_is_asked_over_tcp_and_bounded() {
        let dns = DnsServer::saying(Says::Nothing).await;
        let all: Vec<String> = (0..1500).map(|n| format!("app.internal A 10.0.{}.{}", n / 250, n % 250)).collect();
        dns.say(Says::Records(all, 0));
        let lb = app(&from_dns(&dns, 80)).start().await;
        lb.wait_until("all should be members", |lb| members(lb).len() == 1500).await;
    }

    #[tokio::test]
    async fn an_answer_is_not_asked_for_again_before_its_time() {
        let dns = DnsServer::saying(addresses("app.internal", &["127.0.0.1"], 3600)).await;
        let other = DnsServer::saying(addresses("app.internal", &["127.0.0.1"], 0)).await;
        let slow = |dns: &DnsServer| from_dns(dns, 80).replace("50ms", "1h");
        let text = format!(
            "upstreams:\n  app: {{ health_check: none, {} }}\n  often: {{ health_check: none, {} }}\n\
             routes: [{{ upstream: app }}, {{ match: {{ path: /o }}, upstream: often }}]\n",
            slow(&dns),
            slow(&other)
        );
        let lb = Lb::yaml(text).start().await;
        // Two families, and a second question each for the one whose answers hold for no time.
        lb.wait_until("the other should be asked again", |_| other.asked() >= 4).await;
        assert_eq!(dns.asked(), 2);
    }

    #[tokio::test]
    async fn a_server_that_is_named_also_tells_where_its_services_are() {
        let a = Backend::named("a");
        let port = a.address().port();
        let records = [format!("_http._tcp.app.x SRV 1 1 {port} node.x"), "node.x A 127.0.0.1".to_owned()];
        let dns = DnsServer::saying(Says::Records(records.to_vec(), 0)).await;
        let lb = app(&format!("discover: {{ srv: _http._tcp.app.x, server: \"{}\" }}", dns.address())).start().await;
        until_members(&lb, &[&a]).await;
        assert_eq!(lb.get("/").await.body, "a");
    }

    #[tokio::test]
    async fn a_host_that_cannot_be_asked_for_stays_where_it_was() {
        let [a, b] = ["a", "b"].map(Backend::named);
        let says = |backend: &Backend, more: &[&str]| {
            let service = |host: &str| format!("_http._tcp.app.x SRV 1 1 {} {host}", backend.address().port());
            let records = ["node.x", "new.x"].map(service).into_iter().chain(more.iter().map(|it| (*it).to_owned()));
            Says::Records(records.collect(), 0)
        };
        let nowhere = ["node.x FAILURE", "new.x FAILURE"];
        let dns = DnsServer::saying(says(&a, &nowhere)).await;
        let keys = format!("discover: {{ srv: _http._tcp.app.x, server: \"{}\", interval: 50ms }}", dns.address());
        let (program, address) = program(tempfile::tempdir().unwrap(), &keys).await;
        program.line_with("upstream app: discovery fails, ").await;

        dns.say(says(&a, &["node.x A 127.0.0.1", "new.x FAILURE"]));
        program.line_with("upstream app: discovery skips ").await;
        program.line_with("upstream app: discovery works again").await;
        let body = |address| async move { Client::tcp(address).await.exchange(GET).await.text() };
        in_time("a should serve", async { while body(address).await != "a" {} }).await;

        // The next port, at the address that was known.
        dns.say(says(&b, &nowhere));
        in_time("b should serve", async { while body(address).await != "b" {} }).await;
    }

    #[tokio::test]
    async fn services_have_tiers_weights_and_ports() {
        let [a, b, c] = ["a", "b", "c"].map(Backend::named);
        let records = |backends: &[(&Backend, &str)]| {
            let record = |(backend, rank): &(&Backend, &str)| {
                format!("_http._tcp.app.internal SRV {rank} {} localhost", backend.address().port())
            };
            Says::Records(backends.iter().map(record).collect(), 0)
        };
        let dns = DnsServer::saying(records(&[(&a, "10 30"), (&b, "10 10"), (&c, "20 1")])).await;
        let server = dns.address();
        let keys = format!("discover: {{ srv: _http._tcp.app.internal, server: \"{server}\", interval: 50ms }}");
        let lb = app(&keys).start().await;
        lb.wait_until("three should be members", |lb| members(lb).len() == 3).await;
        let mut client = lb.raw().await;
        for _ in 0..8 {
            assert_eq!(client.exchange(GET).await.status, 200);
        }
        assert_eq!([a.requests(), b.requests(), c.requests()], [6, 2, 0]);

        dns.say(records(&[(&c, "20 1")]));
        lb.wait_until("one should be left", |lb| members(lb).len() == 1).await;
        assert_eq!(lb.get("/").await.body, "c");
    }
}

mod http {
    use support::{Act, Script};

    use super::*;

    fn from_url(list: &Backend) -> String {
        format!("discover: {{ http: \"{}/backends?dc=a\", interval: 20ms }}", list.url())
    }

    /// What a list's server answers, one after the other; the last again and again.
    fn answers(bodies: &[(u16, &str)]) -> Backend {
        let answer = |(status, body): &(u16, &str)| {
            let text = format!("HTTP/1.1 {status} OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            vec![Act::ReadBody, Act::Write(text.into())]
        };
        Backend::scripted(Script::each(bodies.iter().map(answer)))
    }

    #[tokio::test]
    async fn a_list_is_polled_and_what_it_says_is_done() {
        let [a, b] = ["a", "b"].map(Backend::named);
        let (first, then) = (list(&[&a]), list(&[&b]));
        let server = answers(&[(200, &first), (200, &first), (200, &then)]);
        let lb = app(&from_url(&server)).start().await;
        until_members(&lb, &[&b]).await;
        assert_eq!(lb.get("/").await.body, "b");
        let asked = server.received().remove(0).text();
        assert!(asked.starts_with("GET /backends?dc=a HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("host: 127.0.0.1:"), "{asked}");
    }

    #[tokio::test]
    async fn a_list_that_lies_takes_nobody_away() {
        let a = Backend::named("a");
        let good = list(&[&a]);
        let endless = format!("[{}", "\"10.0.0.1:80\", ".repeat(1 << 20));
        let lies = [
            (500, good.as_str()),
            (200, "[]"),
            (200, "[\"10.0.0.1:8"),
            (200, "{\"backends\": [\"10.0.0.1:80\"]}"),
            (200, "<html>"),
            (302, ""),
            (200, endless.as_str()),
        ];
        let script: Vec<_> = lies.iter().flat_map(|lie| [(200, good.as_str()), *lie]).chain([(200, &*good)]).collect();
        let server = answers(&script);
        let (program, address) = program(tempfile::tempdir().unwrap(), &from_url(&server)).await;
        program.lines_with("upstream app: discovery fails, backends kept: 1: ", lies.len()).await;
        program.lines_with("upstream app: discovery works again", lies.len()).await;
        assert_eq!(Client::tcp(address).await.exchange(GET).await.body, "a");
        assert!(!program.lines().iter().any(|line| line.contains("dc=a")), "a query is not shown");
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_or_never_comes_delays_the_start_for_a_bounded_time() {
        let a = Backend::named("a");
        for server in [Backend::hanging(), Backend::refusing()] {
            let lb = app(&format!("backends: [\"{}\"], {}", a.url(), from_url(&server))).start().await;
            assert_eq!((readiness(&lb).await, lb.get("/").await.status), (503, 200));
        }
    }
}

mod register {
    use super::*;

    const REGISTER: &str = "discover: { register: { ttl: 300ms } }";

    async fn ask(lb: &Lb, method: &str, backend: &str, body: &str) -> (u16, String) {
        let length = body.len();
        let request = format!(
            "{method} /upstreams/app/backends/{backend} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let answer = Client::tcp(lb.admin_address()).await.exchange(&request).await;
        (answer.status, answer.text())
    }

    async fn put(lb: &Lb, backend: &Backend) -> u16 {
        ask(lb, "PUT", &backend.address().to_string(), "").await.0
    }

    #[tokio::test]
    async fn a_backend_joins_and_leaves_by_itself() {
        let [a, b] = ["a", "b"].map(Backend::named);
        let lb = app(&REGISTER.replace("300ms", "1h")).start().await;
        assert_eq!((readiness(&lb).await, lb.get("/").await.status), (503, 503));

        assert_eq!((put(&lb, &a).await, put(&lb, &b).await, put(&lb, &a).await), (201, 201, 200));
        until_members(&lb, &[&a, &b]).await;
        assert_eq!(readiness(&lb).await, 200);
        let (status, body) = ask(&lb, "PUT", &a.address().to_string(), r#"{"weight": 3, "name": "big"}"#).await;
        assert_eq!((status, body.contains("\"expires_in_seconds\":3600.0")), (200, true), "{body}");
        lb.wait_until("a should be called big", |lb| members(lb).contains("big")).await;

        assert_eq!(ask(&lb, "DELETE", &a.address().to_string(), "").await.0, 200);
        assert_eq!(ask(&lb, "DELETE", &a.address().to_string(), "").await.0, 404);
        until_members(&lb, &[&b]).await;
        assert_eq!(lb.get("/").await.body, "b");
        // Whoever says that it leaves is believed, also the last.
        assert_eq!(ask(&lb, "DELETE", &b.address().to_string(), "").await.0, 200);
        until_members(&lb, &[]).await;
        assert_eq!(lb.get("/").await.status, 503);
    }

    #[tokio::test]
    async fn who_falls_silent_goes_but_not_the_last() {
        let [a, b] = ["a", "b"].map(Backend::named);
        let lb = app(REGISTER).start().await;
        put(&lb, &b).await;
        lb.wait_until("b should be a member", |lb| members(lb).contains(&b.address().to_string())).await;
        let end = std::time::Instant::now() + support::DEADLINE;
        while members(&lb) != [a.address().to_string()].into() {
            put(&lb, &a).await;
            assert!(std::time::Instant::now() < end, "{:?}", members(&lb));
        }
        let silent = std::time::Instant::now();
        lb.wait_until("two times of silence", |_| silent.elapsed().as_millis() > 600).await;
        assert_eq!((lb.get("/").await.body.as_ref(), members(&lb).len()), ("a".as_bytes(), 1));
        put(&lb, &b).await;
        until_members(&lb, &[&b]).await;
    }

    #[tokio::test]
    async fn a_reload_keeps_who_has_registered() {
        let a = Backend::named("a");
        let lb = app(&REGISTER.replace("300ms", "1h")).start().await;
        put(&lb, &a).await;
        until_members(&lb, &[&a]).await;
        for ttl in ["1h", "2h", "30m"] {
            lb.reload(app(&format!("{}, slow_start: 1s", REGISTER.replace("300ms", ttl)))).await.unwrap();
            assert_eq!((lb.get("/").await.body.as_ref(), readiness(&lb).await), ("a".as_bytes(), 200));
        }
        assert_eq!(ask(&lb, "DELETE", &a.address().to_string(), "").await.0, 200, "it is still in the book");
    }

    #[tokio::test]
    async fn who_was_in_a_list_stays_when_they_are_to_register_from_now_on() {
        let a = Backend::named("a");
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("list.yaml"), &list(&[&a]));
        let lb = app("discover: { file: list.yaml }").try_start_in(folder).await.unwrap();
        until_members(&lb, &[&a]).await;

        lb.reload(app(&REGISTER.replace("300ms", "1h"))).await.unwrap();

        assert_eq!(put(&lb, &a).await, 200, "it is in the book");
        let b = Backend::named("b");
        assert_eq!(put(&lb, &b).await, 201);
        until_members(&lb, &[&a, &b]).await;
    }

    #[tokio::test]
    async fn nonsense_is_explained() {
        let lb = app(REGISTER).start().await;
        for (backend, body, status, part) in [
            ("nonsense", "", 422, "no port"),
            ("10.0.0.1:80", r#"{"weight": 5000}"#, 422, "weight"),
            ("10.0.0.1:80", r#"{"wieght": 5}"#, 422, "wieght"),
            ("10.0.0.1:80", "[", 400, "not JSON"),
            ("unix:%2Frun%2Fdocker.sock", "", 422, "unix"),
        ] {
            let (got, said) = ask(&lb, "PUT", backend, body).await;
            assert!(got == status && said.contains(part), "{backend} {body}: {got} {said}");
        }
        let other = "PUT /upstreams/other/backends/a:80 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = Client::tcp(lb.admin_address()).await.exchange(other).await;
        assert_eq!((answer.status, answer.field("content-type")), (404, Some("application/problem+json")));
        assert!(members(&lb).is_empty());
    }
}
