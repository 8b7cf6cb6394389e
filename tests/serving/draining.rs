//! Backends that a reload has removed: their requests finish, their tunnels have a deadline, and everybody can see it.

use crate::support;

use std::sync::Arc;

use portcullis::backend::State;
use support::front_door::Builder;
use support::{Backend, Client, Lb, Portcullis, wait_until};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// One upstream with these backends; tunnels of those that go have this long.
fn app(backends: &[&Backend], grace: &str) -> Builder {
    Lb::with_backends(backends.iter().copied()).yaml_section(&format!("server: {{ grace_period: {grace} }}"))
}

async fn tunnel(lb: &Lb) -> Client {
    let mut client = lb.raw().await;
    assert_eq!(client.exchange(UPGRADE).await.status, 101);
    client
}

async fn echoes(client: &mut Client) {
    client.send("echo").await;
    assert_eq!(client.read_exactly(4).await, "echo");
}

#[tokio::test]
async fn the_tunnels_of_a_backend_that_is_gone_are_cut_when_their_time_is_over() {
    let (ws, other) = (Backend::upgrading_echo(), Backend::named("other"));
    let lb = app(&[&ws], "300ms").start().await;
    let mut client = tunnel(&lb).await;

    lb.reload(app(&[&other], "300ms")).await.unwrap();
    echoes(&mut client).await;

    client.expect_closed().await;
    lb.until_idle().await;
    assert_eq!(lb.access_log(1).await[0]["reason"], "backend_removed");
    lb.wait_until("nobody should be leaving", |lb| lb.upstream("app").leavers().is_empty()).await;
}

#[tokio::test]
async fn the_tunnels_of_an_upstream_that_is_gone_are_cut_too() {
    let ws = Backend::upgrading_echo();
    let lb = app(&[&ws], "100ms").start().await;
    let mut client = tunnel(&lb).await;

    let nothing = Lb::yaml("routes: [{ respond: { status: 200 } }]\nserver: { grace_period: 100ms }\n");
    lb.reload(nothing).await.unwrap();

    client.expect_closed().await;
    assert_eq!(lb.access_log(1).await[0]["reason"], "backend_removed");
}

#[tokio::test]
async fn a_backend_of_weight_0_is_not_removed_and_keeps_its_tunnels() {
    let (stays, goes) = (Backend::upgrading_echo(), Backend::upgrading_echo());
    let lb = app(&[&stays], "100ms").start().await;
    let mut on_stays = tunnel(&lb).await;
    let drained = format!("\"{}\", weight: 0", stays.url());
    let with = |more: &str| {
        let backends = format!("backends: [{{ url: {drained} }}{more}]");
        let upstream = format!("upstreams: {{ app: {{ health_check: none, {backends} }} }}");
        Lb::yaml(format!("{upstream}\nroutes: [{{ upstream: app }}]\nserver: {{ grace_period: 100ms }}\n"))
    };
    lb.reload(with(&format!(", \"{}\"", goes.url()))).await.unwrap();
    let mut on_goes = tunnel(&lb).await;

    lb.reload(with(", 127.0.0.1:9")).await.unwrap();

    on_goes.expect_closed().await;
    echoes(&mut on_stays).await;
    assert_eq!(lb.upstream("app").members()[0].backend.state(), State::Draining);
}

#[tokio::test]
async fn a_backend_that_comes_back_in_time_is_the_one_it_was() {
    let (ws, other) = (Backend::upgrading_echo(), Backend::upgrading_echo());
    let lb = app(&[&ws], "400ms").start().await;
    let mut on_ws = tunnel(&lb).await;
    let before = lb.upstream("app").members()[0].backend.clone();

    lb.reload(app(&[&other], "400ms")).await.unwrap();
    assert_eq!((before.state(), lb.upstream("app").leavers().len()), (State::Draining, 1));
    let mut on_other = tunnel(&lb).await;
    lb.reload(app(&[&ws], "400ms")).await.unwrap();

    // Its own time would have been over before that of the other.
    on_other.expect_closed().await;
    echoes(&mut on_ws).await;
    let upstream = lb.upstream("app");
    assert!(Arc::ptr_eq(&upstream.members()[0].backend, &before));
    assert_eq!((before.state(), upstream.in_flight(&before)), (State::Healthy, 1));
}

#[tokio::test]
async fn a_request_in_flight_outlasts_the_time_of_tunnels() {
    let (held, ws, other) = (Backend::held("late"), Backend::upgrading_echo(), Backend::named("other"));
    let lb = app(&[&held], "100ms").start().await;
    let mut waiting = lb.raw().await;
    waiting.send(GET).await;
    held.until_requests(1).await;
    lb.reload(app(&[&ws], "100ms")).await.unwrap();
    let mut client = tunnel(&lb).await;

    lb.reload(app(&[&other], "100ms")).await.unwrap();

    client.expect_closed().await;
    assert_eq!(lb.upstream("app").leavers().len(), 1, "the one that has a request");
    held.release();
    assert_eq!(waiting.read_response().await.body, "late");
    lb.wait_until("nobody should be leaving", |lb| lb.upstream("app").leavers().is_empty()).await;
}

#[tokio::test]
async fn who_joins_by_a_reload_is_pending_until_it_is_probed() {
    let (a, b) = (Backend::named("a"), Backend::held("b"));
    let probed = |backends: &[&Backend]| app(backends, "1s").yaml_upstream("health_check: { path: /up, timeout: 1h }");
    let lb = probed(&[&a]).start().await;
    lb.wait_until("a should be probed", |lb| lb.upstream("app").is_probed()).await;

    lb.reload(probed(&[&a, &b])).await.unwrap();
    b.until_requests(1).await;

    let state = |lb: &Lb| lb.upstream("app").members()[1].backend.state();
    assert_eq!(state(&lb), State::Pending);
    for _ in 0..10 {
        assert_eq!(lb.get("/").await.body, "a");
    }
    assert_eq!(b.requests(), 1, "the probe and no request");
    b.release();
    wait_until("b should be HEALTHY", || state(&lb) == State::Healthy).await;
}

#[tokio::test]
async fn the_dashboard_shows_who_is_leaving_until_its_last_request_has_ended() {
    let (held, other) = (Backend::held("late"), Backend::named("other"));
    let file = |backend: &Backend| {
        format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ app: {{ backends: [\"{}\"], health_check: none }} }}\n\
             routes: [{{ upstream: app }}]\nadmin: {{ address: none }}\nserver: {{ reload: {{ watch: false }} }}\n\
             log: {{ access: none }}\n",
            backend.url()
        )
    };
    let program = Portcullis::run(&file(&held));
    let line = program.line_with("listening on ").await;
    let mut client = Client::tcp(line.rsplit(' ').next().unwrap().parse().unwrap()).await;
    client.send(GET).await;
    held.until_requests(1).await;

    std::fs::write(program.file(), file(&other)).unwrap();
    program.signal("HUP");

    program.line_with(&format!("backend {} is DRAINING: it was removed", held.address())).await;
    program.line_with("app: 2 backends, 1 HEALTHY, 1 DRAINING").await;
    held.release();
    assert_eq!(client.read_response().await.body, "late");
    program.line_with(&format!("backend {} has left, with nothing in flight", held.address())).await;
    program.line_with("app: 1 backend, 1 HEALTHY").await;
}
