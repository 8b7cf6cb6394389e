//! Backends that come and go by themselves: from every place that can be asked, also when it lies.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use portcullis::backend::State;
use support::front_door::Builder;
use support::{Backend, Client, Lb, Portcullis};
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
            program.lines_with("upstream app: discovery fails, 2 backends kept: ", turn).await;
            let mut client = Client::tcp(address).await;
            let served: BTreeSet<_> = [client.exchange(GET).await.text(), client.exchange(GET).await.text()].into();
            assert_eq!(served.len(), 2, "{bad:?}");
            write(&path, &list(&[&a, &b]));
            program.lines_with("upstream app: discovery works again", turn).await;
        }
        write(&path, &format!("[{}, nonsense, {{ url: \"{}\", tier: 1 }}, unix:/x/y]", a.address(), b.address()));
        program.line_with("upstream app: discovery skips 1 entries, the first: [1]: `nonsense` has no port").await;
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
