//! Real backends on port 0; every wait is a condition with a deadline.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;
use crate::backend::PeerTls;
use crate::backend::{Backend, Seat, State};
use crate::config::Protocol;
use crate::config::{self, CertificateFiles, LiveHealth, Target, UpstreamTls};
use crate::health::OnChange;

/// What a scripted backend answers.
const SILENCE: u16 = 0;

/// How a scripted backend behaves, and what it saw.
#[derive(Default)]
struct Script {
    status: AtomicU16,
    probes: AtomicU32,
    heads: Mutex<Vec<String>>,
}

impl Script {
    fn answering(status: u16) -> Arc<Self> {
        Arc::new(Self { status: status.into(), ..Self::default() })
    }

    async fn converse(self: Arc<Self>, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut head = vec![0; 4096];
        let Ok(read) = stream.read(&mut head).await else { return };
        self.probes.fetch_add(1, Relaxed);
        self.heads.lock().unwrap().push(String::from_utf8_lossy(&head[..read]).into_owned());
        let status = self.status.load(Relaxed);
        if status == SILENCE {
            std::future::pending::<Infallible>().await;
        }
        let answer = format!("HTTP/1.1 {status} Fine\r\nContent-Length: 2\r\n\r\nok");
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    fn serve(self: &Arc<Self>, listener: TcpListener) -> Task {
        let script = self.clone();
        Task::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(script.clone().converse(stream));
            }
        })
    }
}

fn schedule() -> Schedule {
    let ms = Duration::from_millis;
    Schedule { interval: ms(20), fast_interval: ms(10), timeout: ms(2000), fall: 3, rise: 2 }
}

fn http(schedule: Schedule) -> HealthCheck {
    HealthCheck::Http { path: "/up?x=1".into(), host: None, expect: vec![200..=299, 401..=401], schedule }
}

fn no_files() -> UpstreamTls {
    UpstreamTls { verify: true, ca: None, server_name: None, client: None }
}

fn backend(target: Target, tls: bool) -> Arc<Backend> {
    let config = config::Backend {
        name: "b".into(),
        target,
        tls,
        weight: 1,
        tier: 0,
        limits: config::Limits::default(),
        send_proxy: None,
        drained: false,
    };
    Arc::new(Backend::new(&"app".into(), &config, Seat(0)))
}

fn at(address: SocketAddr) -> Arc<Backend> {
    backend(Target::Address(address), false)
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The states that were told.
type Changes = Arc<Mutex<Vec<State>>>;

fn speech(protocol: Protocol, tls: Arc<PeerTls>) -> Speech {
    Speech { protocol, tls, send_proxy: None }
}

fn start(
    backend: &Arc<Backend>,
    check: &HealthCheck,
    protocol: Protocol,
    tls: &UpstreamTls,
) -> (Option<Task>, Changes) {
    let changes = Changes::default();
    let (heard, whose) = (changes.clone(), Arc::downgrade(backend));
    let on_change: OnChange = Arc::new(move || heard.lock().unwrap().extend(whose.upgrade().map(|it| it.state())));
    let keeper = Arc::new(Keeper::new(backend.clone()));
    keeper.tell(on_change);
    let tls = Arc::new(PeerTls::load(tls).unwrap());
    (watch(keeper, check, speech(protocol, tls), None), changes)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} never came");
        sleep(Duration::from_millis(2)).await;
    }
}

async fn reaches(backend: &Backend, state: State) {
    let what = format!("{} ({:?})", state.as_str(), backend.reading().last_error);
    until(&what, || backend.state() == state).await;
}

fn last_error(backend: &Backend) -> String {
    backend.reading().last_error.map(|error| error.what.clone()).unwrap_or_default()
}

#[tokio::test]
async fn without_a_check_a_backend_is_healthy_at_once() {
    let backend = at("127.0.0.1:1".parse().unwrap());
    let (task, changes) = start(&backend, &HealthCheck::None, Protocol::Http1, &no_files());
    assert!(task.is_none());
    assert_eq!(backend.state(), State::Healthy);
    assert_eq!(*changes.lock().unwrap(), [State::Healthy]);
}

#[tokio::test]
async fn a_backend_rises_falls_and_rises_again() {
    let (listener, address) = listen().await;
    let script = Script::answering(200);
    let _server = script.serve(listener);
    let backend = at(address);
    let (_task, changes) = start(&backend, &http(schedule()), Protocol::Http1, &no_files());
    reaches(&backend, State::Healthy).await;
    script.status.store(503, Relaxed);
    reaches(&backend, State::Unreachable).await;
    assert_eq!(last_error(&backend), "status 503");
    assert!(backend.reading().failures_in_row >= 3);
    script.status.store(401, Relaxed);
    reaches(&backend, State::Healthy).await;
    assert_eq!(backend.reading().failures_in_row, 0);
    let expected = [State::Healthy, State::Unreachable, State::Healthy];
    until("the last change", || *changes.lock().unwrap() == expected).await;
}

#[tokio::test]
async fn a_probe_says_who_it_is_and_asks_for_what_was_configured() {
    let (listener, address) = listen().await;
    let script = Script::answering(200);
    let _server = script.serve(listener);
    let backend = at(address);
    let (_task, _) = start(&backend, &http(schedule()), Protocol::Http1, &no_files());
    reaches(&backend, State::Healthy).await;
    let head = script.heads.lock().unwrap()[0].to_lowercase();
    assert!(head.starts_with("get /up?x=1 http/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
    assert!(head.contains(&format!("user-agent: portcullis/{} health check\r\n", env!("CARGO_PKG_VERSION"))), "{head}");
}

#[tokio::test]
async fn a_refused_connection_fails_both_kinds_of_check() {
    for check in [http(schedule()), HealthCheck::Tcp(schedule())] {
        let (listener, address) = listen().await;
        drop(listener);
        let backend = at(address);
        let (_task, _) = start(&backend, &check, Protocol::Http1, &no_files());
        reaches(&backend, State::Unreachable).await;
        assert_eq!(last_error(&backend), "connection refused");
    }
}

#[tokio::test]
async fn a_backend_that_never_answers_fails_by_time() {
    let (listener, address) = listen().await;
    let script = Script::answering(SILENCE);
    let _server = script.serve(listener);
    let backend = at(address);
    let check = http(Schedule { timeout: Duration::from_millis(50), ..schedule() });
    let (_task, _) = start(&backend, &check, Protocol::Http1, &no_files());
    reaches(&backend, State::Unreachable).await;
    assert!(
        ["probe timeout", "no answer in time"].contains(&last_error(&backend).as_str()),
        "{}",
        last_error(&backend)
    );
}

#[tokio::test]
async fn a_connection_is_enough_for_a_tcp_check() {
    let (_listener, address) = listen().await;
    let backend = at(address);
    let (_task, _) = start(&backend, &HealthCheck::Tcp(schedule()), Protocol::Http1, &no_files());
    reaches(&backend, State::Healthy).await;
}

#[tokio::test]
async fn a_unix_socket_is_probed_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let script = Script::answering(200);
    let served = script.clone();
    let _server = Task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(served.clone().converse(stream));
        }
    });
    for check in [http(schedule()), HealthCheck::Tcp(schedule())] {
        let backend = backend(Target::Unix(path.clone()), false);
        let (_task, _) = start(&backend, &check, Protocol::Http1, &no_files());
        reaches(&backend, State::Healthy).await;
    }
}

#[tokio::test]
async fn a_name_is_probed_as_soon_as_it_is_resolved_at_any_of_its_addresses() {
    let (listener, address) = listen().await;
    let (gone, nobody) = listen().await;
    drop(gone);
    let _server = Script::answering(200).serve(listener);
    let backend = backend(Target::Name { host: "app".into(), port: address.port() }, false);
    let (_task, _) = start(&backend, &http(schedule()), Protocol::Http1, &no_files());
    reaches(&backend, State::Unreachable).await;
    assert_eq!(last_error(&backend), "name not resolved");
    backend.set_addresses(vec![nobody, address]);
    reaches(&backend, State::Healthy).await;
}

#[tokio::test]
async fn a_state_from_before_a_reload_is_kept_until_enough_probes_disagree() {
    let (listener, address) = listen().await;
    let script = Script::answering(500);
    let _server = script.serve(listener);
    let backend = at(address);
    let keeper = Arc::new(Keeper::new(backend.clone()));
    keeper.probed(&Ok(()));
    let tls = Arc::new(PeerTls::load(&no_files()).unwrap());
    let _task = watch(keeper, &http(schedule()), speech(Protocol::Http1, tls), None);
    assert_eq!(backend.state(), State::Healthy);
    reaches(&backend, State::Unreachable).await;
    assert!(script.probes.load(Relaxed) >= 3);
}

#[tokio::test]
async fn a_live_failure_brings_the_next_probe_nearer() {
    let (listener, address) = listen().await;
    let script = Script::answering(200);
    let _server = script.serve(listener);
    let keeper = Arc::new(Keeper::new(at(address)));
    let tls = Arc::new(PeerTls::load(&no_files()).unwrap());
    let rare = Schedule { interval: Duration::from_secs(3600), ..schedule() };
    let _task = watch(keeper.clone(), &http(rare), speech(Protocol::Http1, tls), None);
    // The second probe comes at any time within the hour.
    reaches(keeper.backend(), State::Healthy).await;
    let before = script.probes.load(Relaxed);
    let settings = LiveHealth {
        consecutive_failures: Some(5),
        breaker: None,
        ejection: Duration::from_secs(30),
        max_ejection: Duration::from_secs(30),
        max_ejected: 0.5,
    };
    until("a probe", || {
        keeper.failed(std::time::Instant::now(), None, &settings);
        script.probes.load(Relaxed) > before
    })
    .await;
}

#[tokio::test]
async fn a_dropped_task_probes_no_more() {
    let (listener, address) = listen().await;
    let script = Script::answering(200);
    let _server = script.serve(listener);
    let backend = at(address);
    let (task, _) = start(&backend, &http(schedule()), Protocol::Http1, &no_files());
    reaches(&backend, State::Healthy).await;
    drop(task);
    // The task holds the only other clone; it goes when the task has really ended.
    until("the end of the task", || Arc::strong_count(&backend) == 1).await;
}

/// An HTTP/2 backend that answers the first requests of each connection and then forgets that it is there; gives the
/// connections and the targets that it saw.
fn h2_server(listener: TcpListener, answers: usize) -> (Task, Arc<AtomicU32>, Arc<Mutex<Vec<String>>>) {
    let (connections, targets) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (count, seen) = (connections.clone(), targets.clone());
    let server = Task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Relaxed);
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut unanswered = Vec::new();
                for turn in 0.. {
                    let Some(Ok((request, mut respond))) = connection.accept().await else { return };
                    seen.lock().unwrap().push(request.uri().to_string());
                    if turn < answers {
                        respond.send_response(http::Response::new(()), true).unwrap();
                    } else {
                        unanswered.push(respond);
                    }
                }
            });
        }
    });
    (server, connections, targets)
}

#[tokio::test]
async fn http2_is_probed_by_prior_knowledge() {
    let (listener, address) = listen().await;
    let (_server, _, targets) = h2_server(listener, usize::MAX);
    let backend = at(address);
    let (_task, _) = start(&backend, &http(schedule()), Protocol::Http2, &no_files());
    reaches(&backend, State::Healthy).await;
    let target = targets.lock().unwrap()[0].clone();
    assert!(target.ends_with(&format!("://{address}/up?x=1")), "{target}");
}

#[tokio::test]
async fn every_http2_probe_makes_a_connection_of_its_own() {
    let (listener, address) = listen().await;
    let (_server, connections, _) = h2_server(listener, 1);
    let (_task, _) = start(&at(address), &http(schedule()), Protocol::Http2, &no_files());
    until("a third connection", || connections.load(Relaxed) >= 3).await;
}

/// A TLS backend for `localhost`, and where its certificate lies.
async fn tls_server(dir: &Path, script: Arc<Script>, wants_client: bool) -> (SocketAddr, CertificateFiles, Task) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = CertificateFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.unwrap();
    let builder = if wants_client {
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    let server = Task::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, script) = (acceptor.clone(), script.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    script.converse(stream).await;
                }
            });
        }
    });
    (address, files, server)
}

/// Probes a TLS backend both ways, with these settings; gives the state and the last error.
async fn tls_outcome(address: SocketAddr, tls: &UpstreamTls, check: &HealthCheck) -> (State, String) {
    let backend = backend(Target::Address(address), true);
    let (_task, _) = start(&backend, check, Protocol::Http1, tls);
    until("a first outcome", || backend.state() != State::Pending).await;
    (backend.state(), last_error(&backend))
}

#[tokio::test]
async fn a_tls_backend_passes_only_if_its_certificate_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (address, files, _server) = tls_server(dir.path(), Script::answering(200), false).await;
    let trusting = UpstreamTls { ca: Some(files.cert.clone()), server_name: Some("localhost".into()), ..no_files() };
    let misnamed = UpstreamTls { server_name: Some("elsewhere".into()), ..trusting.clone() };
    let careless = UpstreamTls { verify: false, ..no_files() };
    for check in [http(schedule()), HealthCheck::Tcp(schedule())] {
        assert_eq!(tls_outcome(address, &trusting, &check).await.0, State::Healthy);
        assert_eq!(tls_outcome(address, &careless, &check).await.0, State::Healthy);
        for untrusted in [&misnamed, &no_files()] {
            let (state, error) = tls_outcome(address, untrusted, &check).await;
            assert_eq!(state, State::Unreachable);
            assert!(error.contains("certificate"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_backend_that_asks() {
    let dir = tempfile::tempdir().unwrap();
    let (address, files, _server) = tls_server(dir.path(), Script::answering(200), true).await;
    let anonymous = UpstreamTls { ca: Some(files.cert.clone()), server_name: Some("localhost".into()), ..no_files() };
    let known = UpstreamTls { client: Some(files), ..anonymous.clone() };
    assert_eq!(tls_outcome(address, &known, &http(schedule())).await.0, State::Healthy);
    assert_eq!(tls_outcome(address, &anonymous, &http(schedule())).await.0, State::Unreachable);
}

/// Has nothing to give; notes when it was asked.
#[derive(Clone, Default)]
struct Penniless(Arc<Mutex<Vec<Instant>>>);

impl Toll for Penniless {
    fn pay(&self) -> Option<Box<dyn crate::health::Paid>> {
        self.0.lock().unwrap().push(Instant::now());
        None
    }
}

#[tokio::test]
async fn a_first_probe_that_cannot_be_paid_is_tried_again_an_interval_later() {
    let (_listener, address) = listen().await;
    let (keeper, toll) = (Arc::new(Keeper::new(at(address))), Penniless::default());
    let check = http(Schedule { interval: Duration::from_millis(150), ..schedule() });
    let tls = Arc::new(PeerTls::load(&no_files()).unwrap());
    let _task = watch(keeper.clone(), &check, speech(Protocol::Http1, tls), Some(Box::new(toll.clone())));
    until("a third try", || toll.0.lock().unwrap().len() >= 3).await;
    let asked = toll.0.lock().unwrap().clone();
    assert!(asked[2] - asked[0] >= Duration::from_millis(300), "{:?}", asked[2] - asked[0]);
    assert_eq!((keeper.backend().state(), keeper.pace.is_unpaid()), (State::Pending, true));
}

#[tokio::test]
async fn whoever_goes_on_with_the_probes_keeps_their_pace() {
    let (listener, address) = listen().await;
    let script = Script::answering(200);
    let _server = script.serve(listener);
    let keeper = Arc::new(Keeper::new(at(address)));
    let tls = Arc::new(PeerTls::load(&no_files()).unwrap());
    let again = |check: &HealthCheck| watch(keeper.clone(), check, speech(Protocol::Http1, tls.clone()), None);
    let rare = http(Schedule { interval: Duration::from_secs(3600), ..schedule() });
    drop(again(&rare));
    let first = again(&rare);
    until("an outcome", || keeper.pace.due(&rare).is_some()).await;
    keeper.pace.set_due(&rare, Instant::now() + Duration::from_millis(500));
    let before = (script.probes.load(Relaxed), Instant::now());
    drop(first);
    let second = again(&rare);
    until("the next probe", || script.probes.load(Relaxed) > before.0).await;
    assert!(before.1.elapsed() >= Duration::from_millis(490), "{:?}", before.1.elapsed());
    drop(second);
    // By another check it has not been probed yet.
    let _third = again(&http(Schedule { interval: Duration::from_secs(3599), ..schedule() }));
    let before = script.probes.load(Relaxed);
    until("a probe by another check", || script.probes.load(Relaxed) > before).await;
}
