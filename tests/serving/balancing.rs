//! Who serves: the shares, the order and the in-flight counts of each policy, as clients and backends see them.

use crate::support;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use support::{Act, Backend, Client, Lb, Script};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

const POLICIES: [&str; 6] = [
    "round_robin",
    "least_connections",
    "random",
    "two_choices",
    "peak_ewma",
    "{ consistent_hash: { key: client_address } }",
];

/// One upstream with this policy; each backend with more keys of its own.
fn app(balance: &str, backends: &[(&Backend, &str)]) -> support::front_door::Builder {
    let line = |(backend, more): &(&Backend, &str)| format!("      - {{ url: \"{}\"{more} }}\n", backend.url());
    let list = backends.iter().map(line).collect::<String>();
    // Nor ejections: who was stopped shall be chosen again as soon as it is back.
    Lb::yaml(format!(
        "upstreams:\n  app:\n    balance: {balance}\n    health_check: none\n    passive_health: none\n    backends:\n\
         {list}routes: [{{ upstream: app }}]\n"
    ))
}

/// Who answers each of these requests, one after another on one connection.
async fn answers(client: &mut Client, requests: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names = Vec::new();
    for request in requests {
        let response = client.exchange(request).await;
        assert_eq!(response.status, 200, "{response:?}");
        names.push(response.text());
    }
    names
}

/// Who answers so many plain requests, one after another on one connection.
async fn in_turn(lb: &Lb, count: usize) -> Vec<String> {
    answers(&mut lb.raw().await, std::iter::repeat_n(GET.to_owned(), count)).await
}

fn shares(names: &[String]) -> HashMap<&str, usize> {
    names.iter().fold(HashMap::new(), |mut counts, name| {
        *counts.entry(name.as_str()).or_default() += 1;
        counts
    })
}

/// Requests that stay in flight, each on a connection of its own, sent one after another.
async fn held_requests(lb: &Lb, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 1..=count {
        let mut client = lb.raw().await;
        client.send(GET).await;
        let leases = |lb: &Lb| in_flight(lb).iter().sum::<u32>();
        lb.wait_until("the request should be on a backend", |lb| leases(lb) as usize == number).await;
        clients.push(client);
    }
    clients
}

/// In flight on each backend, in the order of the configuration.
fn in_flight(lb: &Lb) -> Vec<u32> {
    let upstream = lb.upstream("app");
    upstream.members().iter().map(|member| upstream.in_flight(&member.backend)).collect()
}

#[tokio::test]
async fn round_robin_is_smooth_and_repeats_itself_exactly() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let lb = app("round_robin", &[(&a, ", weight: 5"), (&b, ""), (&c, "")]).start().await;

    let order = in_turn(&lb, 700).await.concat();

    let round = &order[..7];
    assert!("aabacaaaabacaa".contains(round), "{round} is no rotation of aabacaa");
    assert_eq!(order, round.repeat(100));
}

#[tokio::test]
async fn random_keeps_the_shares_of_the_weights_within_a_bound() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let lb = app("random", &[(&a, ", weight: 5"), (&b, ""), (&c, "")]).start().await;

    let names = in_turn(&lb, 1400).await;

    // Five standard deviations each way: 1000 ± 85, 200 ± 66.
    let shares = shares(&names);
    assert!((915..=1085).contains(&shares["a"]), "{shares:?}");
    assert!((134..=266).contains(&shares["b"]) && (134..=266).contains(&shares["c"]), "{shares:?}");
}

#[tokio::test]
async fn least_connections_shares_what_is_in_flight_by_weight() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::held);
    let lb = app("least_connections", &[(&a, ", weight: 5"), (&b, ""), (&c, "")]).start().await;

    let clients = held_requests(&lb, 70).await;

    assert_eq!(in_flight(&lb), [50, 10, 10]);
    assert_eq!(lb.in_flight(), 70);
    [&a, &b, &c].into_iter().for_each(Backend::release_all);
    for mut client in clients {
        assert_eq!(client.read_response().await.status, 200);
    }
    lb.until_idle().await;
    assert_eq!(in_flight(&lb), [0, 0, 0]);
}

#[tokio::test]
async fn two_choices_keeps_what_is_in_flight_near_the_weights() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::held);
    let lb = app("two_choices", &[(&a, ", weight: 5"), (&b, ""), (&c, "")]).start().await;

    let _clients = held_requests(&lb, 70).await;

    let loads = in_flight(&lb);
    assert!((40..=60).contains(&loads[0]), "{loads:?}");
    assert!((4..=20).contains(&loads[1]) && (4..=20).contains(&loads[2]), "{loads:?}");
}

#[tokio::test]
async fn peak_ewma_leaves_a_slow_backend_alone() {
    let (slow, quick) = (Backend::slow(Duration::from_millis(150), "slow"), Backend::named("quick"));
    let lb = app("peak_ewma", &[(&slow, ""), (&quick, "")]).start().await;

    in_turn(&lb, 60).await;

    // What is unknown counts as 30 ms, so each may be asked first; 150 ms need many seconds to decay.
    assert!(slow.requests() <= 2, "{} of 60 went to the slow one", slow.requests());
}

#[tokio::test]
async fn peak_ewma_is_not_attracted_by_quick_failures_and_remembers_them_over_a_reload() {
    let (failing, good) = (Backend::answering(503, "no"), Backend::slow(Duration::from_millis(20), "good"));
    let backends = [(&failing, ""), (&good, "")];
    let lb = app("peak_ewma", &backends).start().await;

    while failing.requests() == 0 {
        lb.get("/").await;
    }
    for _ in 0..20 {
        assert_eq!(lb.get("/").await.body, "good");
    }
    lb.reload(app("peak_ewma", &backends).yaml_section("server: { drain_delay: 1s }")).await.unwrap();
    for _ in 0..20 {
        assert_eq!(lb.get("/").await.body, "good");
    }

    assert_eq!(failing.requests(), 1);
}

#[tokio::test]
async fn peak_ewma_avoids_a_backend_that_outlasts_its_clients() {
    let (hung, good) = (Backend::hanging(), Backend::slow(Duration::from_millis(20), "good"));
    let lb = app("peak_ewma", &[(&hung, ""), (&good, "")]).start().await;
    while hung.requests() == 0 {
        let mut client = lb.raw().await;
        client.send(GET).await;
        lb.wait_until("answered or held", |lb| lb.in_flight() == hung.requests()).await;
        // Longer than an unknown backend is expected to take.
        let patience = std::time::Instant::now() + Duration::from_millis(200);
        support::wait_until("the client should lose patience", || {
            hung.requests() == 0 || std::time::Instant::now() > patience
        })
        .await;
    }
    lb.until_idle().await;

    assert_eq!(shares(&in_turn(&lb, 20).await), HashMap::from([("good", 20)]));
}

#[tokio::test]
async fn least_connections_rotates_an_idle_pool() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let lb = app("least_connections", &[(&a, ""), (&b, ""), (&c, "")]).start().await;

    let names = in_turn(&lb, 30).await;

    assert_eq!(shares(&names), HashMap::from([("a", 10), ("b", 10), ("c", 10)]));
}

#[tokio::test]
async fn least_connections_spares_a_backend_that_does_not_answer() {
    let (slow, b, c) = (Backend::held("slow"), Backend::named("b"), Backend::named("c"));
    let lb = app("least_connections", &[(&slow, ""), (&b, ""), (&c, "")]).start().await;
    let mut waiting = lb.raw().await;
    while slow.requests() == 0 {
        waiting = lb.raw().await;
        waiting.send(GET).await;
        lb.wait_until("answered or held", |lb| lb.in_flight() == slow.requests()).await;
    }

    let names = in_turn(&lb, 20).await;

    assert_eq!(shares(&names), HashMap::from([("b", 10), ("c", 10)]));
    assert_eq!(in_flight(&lb), [1, 0, 0]);
    slow.release_all();
    assert_eq!(waiting.read_response().await.body, "slow");
    lb.until_idle().await;
    assert_eq!(shares(&in_turn(&lb, 30).await)["slow"], 10);
}

#[tokio::test]
async fn consistent_hash_sticks_to_the_key_whatever_it_is() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    for (key, request) in [
        ("header:x-tenant", "GET / HTTP/1.1\r\nHost: h\r\nX-Tenant: KEY\r\n\r\n"),
        ("cookie:session", "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b; session=KEY\r\n\r\n"),
        ("path", "GET /KEY?x=y HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("client_address", "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.KEY\r\n\r\n"),
    ] {
        let policy = format!("{{ consistent_hash: {{ key: \"{key}\" }} }}");
        let trusting = "server: { trusted_proxies: [127.0.0.1/32] }";
        let lb = app(&policy, &[(&a, ""), (&b, ""), (&c, "")]).yaml_section(trusting).start().await;
        let requests = || (1..=60).map(|number| request.replace("KEY", &number.to_string()));

        let first = answers(&mut lb.raw().await, requests()).await;
        let again = answers(&mut lb.raw().await, requests().rev()).await;

        assert!(first.iter().eq(again.iter().rev()), "{key}: {first:?} {again:?}");
        assert_eq!(shares(&first).len(), 3, "{key}: {first:?}");
    }
}

#[tokio::test]
async fn consistent_hash_without_a_key_spreads_the_requests() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    for key in ["cookie:session", "header:x-tenant"] {
        let policy = format!("{{ consistent_hash: {{ key: \"{key}\" }} }}");
        let lb = app(&policy, &[(&a, ""), (&b, ""), (&c, "")]).start().await;

        let names = in_turn(&lb, 120).await;

        assert_eq!(shares(&names).len(), 3, "{key}: who has no key yet would drown one backend: {:?}", shares(&names));
    }
}

#[tokio::test]
async fn consistent_hash_moves_only_the_share_of_a_backend_that_goes() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let lb = app("{ consistent_hash: { key: path } }", &[(&a, ""), (&b, ""), (&c, "")]).start().await;
    let requests = || (0..90).map(|number| format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let before = answers(&mut lb.raw().await, requests()).await;

    b.stop().await;
    let without = answers(&mut lb.raw().await, requests()).await;
    b.restart().await;
    let after = answers(&mut lb.raw().await, requests()).await;

    for ((before, without), path) in before.iter().zip(&without).zip(0..) {
        assert!(before == "b" || before == without, "/{path} moved from {before} to {without}");
        assert_ne!(without, "b");
    }
    let heirs = before.iter().zip(&without).filter(|(before, _)| *before == "b").map(|(_, heir)| heir.as_str());
    assert_eq!(heirs.collect::<HashSet<_>>(), HashSet::from(["a", "c"]), "the share goes to all that are left");
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_popular_key_may_load_its_backend_only_so_far() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::held);
    let bounded = "{ consistent_hash: { key: path, bounded_load: 125% } }";
    let lb = app(bounded, &[(&a, ""), (&b, ""), (&c, "")]).start().await;

    let _clients = held_requests(&lb, 30).await;

    // 125% of an average of 10, rounded up.
    let loads = in_flight(&lb);
    assert!(loads.iter().all(|&load| load <= 13), "{loads:?}");
}

#[tokio::test]
async fn weight_0_gets_nothing_whatever_the_policy() {
    let (none, some) = (Backend::named("none"), Backend::named("some"));
    for policy in POLICIES {
        let lb = app(policy, &[(&none, ", weight: 0"), (&some, "")]).start().await;
        assert_eq!(shares(&in_turn(&lb, 20).await), HashMap::from([("some", 20)]), "{policy}");
    }
    some.stop().await;
    let lb = app("round_robin", &[(&none, ", weight: 0"), (&some, "")]).start().await;
    let nobody = lb.get("/").await;
    assert_eq!((nobody.status, nobody.field("connection")), (502, Some("close")));
    assert_eq!(none.requests(), 0);
}

#[tokio::test]
async fn a_backup_serves_only_while_no_other_can() {
    let (main, backup) = (Backend::named("main"), Backend::named("backup"));
    for policy in POLICIES {
        let lb = app(policy, &[(&main, ""), (&backup, ", backup: true")]).start().await;
        assert_eq!(shares(&in_turn(&lb, 10).await), HashMap::from([("main", 10)]), "{policy}");
        main.stop().await;
        assert_eq!(shares(&in_turn(&lb, 10).await), HashMap::from([("backup", 10)]), "{policy}");
        main.restart().await;
        assert_eq!(shares(&in_turn(&lb, 10).await), HashMap::from([("main", 10)]), "{policy}");
    }
}

#[tokio::test]
async fn in_flight_counts_what_is_held_and_forgets_who_goes_away() {
    let backend = Backend::held("late");
    let lb = app("round_robin", &[(&backend, "")]).start().await;

    let mut clients = held_requests(&lb, 3).await;
    assert_eq!((in_flight(&lb), lb.in_flight()), (vec![3], 3));

    drop(clients.pop());
    lb.wait_until("an abort should be noticed", |lb| in_flight(lb) == [2]).await;
    backend.release_all();
    for client in &mut clients {
        assert_eq!(client.read_response().await.body, "late");
    }
    lb.until_idle().await;
    assert_eq!(in_flight(&lb), [0]);
}

#[tokio::test]
async fn in_flight_is_0_after_whatever_went_wrong() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.";
    let half = Script::each([vec![Act::ReadBody, Act::Write(head.into()), Act::Reset]]);
    for (backend, reason) in [
        (Backend::refusing(), "connect_refused"),
        (Backend::resetting_before_head(), "backend_closed"),
        (Backend::resetting_on_accept(), "backend_closed"),
        (Backend::closing_after_request(), "backend_closed"),
        (Backend::writing("no HTTP at all\r\n\r\n"), "backend_protocol"),
        (Backend::hanging(), "first_byte_timeout"),
        (Backend::black_hole(), "connect_timeout"),
        (Backend::scripted(half), "backend_closed"),
        (Backend::lying_about_length(10, "short"), "backend_closed"),
    ] {
        let times = "timeouts: { connect: 100ms, first_byte: 100ms }";
        let lb = Lb::with_backends([&backend]).yaml_upstream(times).start().await;
        for _ in 0..3 {
            let mut client = lb.raw().await;
            client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
            // What the client gets is for other tests; here it only has to end.
            let _ = client.try_read_to_end().await;
        }
        lb.until_idle().await;
        let reasons = lb.access_log(3).await.into_iter().map(|line| line["reason"].clone()).collect::<Vec<_>>();
        assert_eq!(reasons, [reason; 3]);
        assert_eq!(in_flight(&lb), [0], "after {reason}");
    }
}

#[tokio::test]
async fn in_flight_is_0_after_streams_were_reset() {
    let backend = Backend::held("late");
    let lb = Lb::with_backends([&backend]).start().await;
    let client = lb.h2().await;
    {
        let requests = (0..4).map(|_| client.get("/"));
        let all = futures_of(requests);
        tokio::select! {
            () = all => panic!("nothing was released"),
            () = lb.wait_until("four streams", |lb| in_flight(lb) == [4]) => {}
        }
    }

    // Dropping the futures has reset the streams; the connection itself goes on.
    lb.wait_until("resets should be noticed", |lb| in_flight(lb) == [0]).await;
    backend.release_all();
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), client.get("/")).await.unwrap().body, "late");
}

/// All of them at once.
async fn futures_of<F: Future>(futures: impl Iterator<Item = F>) {
    let mut pinned = futures.map(Box::pin).collect::<Vec<_>>();
    std::future::poll_fn(move |context| {
        pinned.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if pinned.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
