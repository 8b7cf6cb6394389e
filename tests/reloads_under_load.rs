//! A hundred reloads while requests are on their way: none of them fails, and what did not change lives on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic where it stands")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use support::front_door::Builder;
use support::{Backend, Client, H2Client, Lb};
use tokio::task::JoinSet;

const RELOADS: u64 = 100;

/// What all clients have in common.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicU64,
}

/// One after another on one connection, for as long as it lasts.
async fn http1(mut client: Client, load: Arc<Load>, request: String, expected: Option<&'static str>) {
    while !load.stop.load(Relaxed) {
        let answer = client.exchange(&request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(expected.is_none_or(|body| answer.body == body), "{:?}", answer.text());
        load.served.fetch_add(1, Relaxed);
    }
}

async fn http2(client: H2Client, load: Arc<Load>) {
    while !load.stop.load(Relaxed) {
        assert_eq!(client.get("/").await.status, 200);
        load.served.fetch_add(1, Relaxed);
    }
}

/// Every third reload changes the backends, every third their weights, and every third the route alone.
fn file(turn: u64, backends: &[Backend; 4]) -> Builder {
    let [stays, others @ ..] = backends;
    let others = others.iter().enumerate().filter(|(index, _)| !(turn / 3 + *index as u64).is_multiple_of(3));
    let weight = 1 + turn / 2 % 5;
    let others: String = others.map(|(_, it)| format!(", {{ url: \"{}\", weight: {weight} }}", it.url())).collect();
    Lb::yaml(format!(
        "upstreams:\n  app:\n    health_check: none\n    sticky: {{ cookie: sid }}\n    backends: [\"{}\"{others}]\n\
         routes: [{{ upstream: app, headers: {{ response: {{ set: {{ x-turn: \"{turn}\" }} }} }} }}]\n",
        stays.url()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_reloads_under_load_fail_no_request_and_forget_nothing() {
    let backends = ["stays", "b", "c", "d"].map(Backend::named);
    let lb = file(0, &backends).start().await;
    let known = lb.upstream("app").members()[0].backend.clone();
    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..4 {
        clients.spawn(http1(lb.raw().await, load.clone(), get.to_owned(), None));
    }
    for _ in 0..2 {
        clients.spawn(http2(lb.h2().await, load.clone()));
    }
    let with_session = get.replacen("\r\n\r\n", &format!("\r\nCookie: {}\r\n\r\n", cookie_of(&lb, "stays").await), 1);
    clients.spawn(http1(lb.raw().await, load.clone(), with_session, Some("stays")));

    let mut counted = known.reading().requests;
    for turn in 1..=RELOADS {
        let before = load.served.load(Relaxed);
        lb.reload(file(turn, &backends)).await.unwrap();
        lb.wait_until("requests should be served", |_| load.served.load(Relaxed) >= before + 10).await;
        let now = known.reading().requests;
        assert!(now >= counted, "its counter never begins anew");
        counted = now;
    }
    load.stop.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }

    lb.until_idle().await;
    let upstream = lb.upstream("app");
    assert!(Arc::ptr_eq(&upstream.members()[0].backend, &known));
    assert_eq!(known.reading().requests, backends[0].requests() as u64, "every request is counted");
    assert!(known.reading().p50.is_some());
    let in_flight = |member: &portcullis::upstream::Member| upstream.in_flight(&member.backend);
    assert!(upstream.members().iter().all(|member| in_flight(member) == 0));
    lb.wait_until("nobody should be leaving", |lb| lb.upstream("app").leavers().is_empty()).await;
}

/// The cookie of a session with this backend.
async fn cookie_of(lb: &Lb, backend: &str) -> String {
    loop {
        let answer = lb.get("/").await;
        if answer.body == backend {
            return answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        }
    }
}
