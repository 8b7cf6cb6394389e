//! Another process takes over: clients notice nothing, and one that cannot changes nothing.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::task::JoinSet;

use crate::support::{Backend, Client, H2Client, Portcullis, wait_until};

const UPGRADES: usize = 5;

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Two listeners, and a place where another process can ask to take over.
fn file(backends: &[&Backend]) -> String {
    let backends: Vec<_> = backends.iter().map(|backend| backend.url()).collect();
    format!(
        "server: {{ upgrade_socket: upgrade.sock, grace_period: 5s }}\n\
         listeners:\n  - address: 127.0.0.1:0\n  - address: 127.0.0.1:0\n    tls: {{ self_signed: [localhost] }}\n\
         upstreams: {{ app: {{ backends: [\"{}\"], health_check: none, sticky: {{ cookie: stay }} }} }}\n\
         routes: [{{ upstream: app }}]\nadmin: {{ address: \"unix:admin.sock\" }}\nlog: {{ access: none }}\n",
        backends.join("\", \"")
    )
}

async fn addresses(program: &Portcullis) -> [SocketAddr; 2] {
    let lines = program.lines_with("listening on 127", 2).await;
    let address = |line: &String| line.rsplit(' ').next().unwrap().parse().unwrap();
    [address(&lines[0]), address(&lines[1])]
}

/// In a thread beside, as whoever asks waits for the answer.
async fn upgrade(program: &Arc<Portcullis>) -> Output {
    let program = program.clone();
    tokio::task::spawn_blocking(move || program.command(&["upgrade", "-c", "portcullis.yaml"])).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    served: AtomicU64,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    async fn goes_on_for(&self, requests: u64) {
        let before = self.served.load(Relaxed);
        wait_until("requests should be served", || self.served.load(Relaxed) >= before + requests).await;
    }
}

/// One after another, on a new connection only where the answer before said that it was the last.
async fn http1(address: SocketAddr, load: Arc<Load>) {
    while load.goes_on() {
        let mut client = Client::tcp(address).await;
        while load.goes_on() {
            let answer = client.exchange(GET).await;
            assert_eq!((answer.status, &*answer.body), (200, &b"hello"[..]));
            load.served.fetch_add(1, Relaxed);
            if answer.field("connection") == Some("close") {
                break;
            }
        }
    }
}

/// The same; a stream that GOAWAY says was not looked at is sent again, as every client does (RFC 9113, section 6.8).
async fn http2(address: SocketAddr, load: Arc<Load>) {
    while load.goes_on() {
        let client = H2Client::tls(address, "localhost").await;
        while load.goes_on() {
            match client.request(client.build("GET", "/"), &[]).await {
                Ok(answer) => assert_eq!(answer.status, 200),
                Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => break,
                Err(error) => panic!("a request over HTTP/2 has failed: {error}"),
            }
            load.served.fetch_add(1, Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_upgrades_under_load_fail_no_request() {
    let backend = Backend::answering(200, "hello");
    let program = Arc::new(Portcullis::run(&file(&[&backend])));
    let [plain, tls] = addresses(&program).await;
    let load = Arc::new(Load::default());
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(http1(plain, load.clone()));
        clients.spawn(http2(tls, load.clone()));
    }
    for turn in 1..=UPGRADES {
        load.goes_on_for(50).await;
        let done = upgrade(&program).await;
        assert!(said(&done).contains("has taken over"), "{}", said(&done));
        assert_eq!(done.status.code(), Some(0));
        program.lines_with("drained", turn).await;
    }
    load.goes_on_for(50).await;
    load.stop.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_process_finishes_what_has_begun_and_takes_one_more_request_of_each_connection() {
    let backend = Backend::held("late");
    let program = Arc::new(Portcullis::run(&file(&[&backend])));
    let [plain, _] = addresses(&program).await;
    let (mut busy, mut idle) = (Client::tcp(plain).await, Client::tcp(plain).await);
    idle.send(GET).await;
    backend.until_requests(1).await;
    backend.release();
    assert_ne!(idle.read_response().await.field("connection"), Some("close"));
    busy.send(GET).await;
    backend.until_requests(2).await;

    assert_eq!(upgrade(&program).await.status.code(), Some(0));
    idle.send(GET).await;
    backend.until_requests(3).await;
    backend.release_all();
    let last = idle.read_response().await;
    assert_eq!((last.status, last.field("connection")), (200, Some("close")));
    assert_eq!(&*busy.read_response().await.body, b"late");
    program.line_with("drained").await;
    assert_eq!(Client::tcp(plain).await.exchange(GET).await.status, 200, "its successor listens there");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_signed_by_the_old_process_is_known_to_the_new_one() {
    let backends = ["a", "b"].map(Backend::named);
    let program = Arc::new(Portcullis::run(&file(&[&backends[0], &backends[1]])));
    let [plain, _] = addresses(&program).await;
    let first = Client::tcp(plain).await.exchange(GET).await;
    let cookie = first.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(upgrade(&program).await.status.code(), Some(0));
    program.line_with("drained").await;
    for _ in 0..4 {
        let request = GET.replacen("\r\n\r\n", &format!("\r\nCookie: {cookie}\r\n\r\n"), 1);
        let answer = Client::tcp(plain).await.exchange(request).await;
        assert_eq!((answer.text(), answer.field("set-cookie")), (first.text(), None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_that_cannot_start_changes_nothing() {
    let backend = Backend::answering(200, "hello");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let program = Arc::new(Portcullis::run(&file(&[&backend])));
    let [plain, _] = addresses(&program).await;
    let other = format!("listeners:\n  - address: {}\n", taken.local_addr().unwrap());
    let more = file(&[&backend]).replacen("listeners:\n", &other, 1);
    std::fs::write(program.file().with_file_name("other.yaml"), more).unwrap();
    let asking = program.clone();
    let refused = tokio::task::spawn_blocking(move || asking.command(&["upgrade", "-c", "other.yaml"])).await.unwrap();
    assert_eq!(refused.status.code(), Some(69));
    assert!(said(&refused).contains("ended before it served"), "{}", said(&refused));
    program.line_with("is in use by another process").await;
    assert_eq!(Client::tcp(plain).await.exchange(GET).await.status, 200);
    // And the next one still can.
    assert_eq!(upgrade(&program).await.status.code(), Some(0));
    assert_eq!(Client::tcp(plain).await.exchange(GET).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_and_a_missing_process_are_told_to_whoever_asks() {
    let backend = Backend::answering(200, "hello");
    let program = Arc::new(Portcullis::run(&file(&[&backend])));
    addresses(&program).await;
    let write = |text: &str| std::fs::write(program.file().with_file_name("other.yaml"), text).unwrap();
    let ask = || program.command(&["upgrade", "-c", "other.yaml"]);
    write("listeners: 5\n");
    assert_eq!(ask().status.code(), Some(78));
    write(&file(&[&backend]).replace("upgrade_socket: upgrade.sock, ", ""));
    let none = ask();
    assert_eq!(none.status.code(), Some(78));
    assert!(said(&none).contains("set server.upgrade_socket"), "{}", said(&none));
    write(&file(&[&backend]).replace("upgrade.sock", "nobody.sock"));
    let nobody = ask();
    assert_eq!(nobody.status.code(), Some(69));
    assert!(said(&nobody).contains("nobody answers on unix:"), "{}", said(&nobody));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_is_told_when_we_serve_and_who_takes_over() {
    let backend = Backend::answering(200, "hello");
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
    std::fs::write(folder.path().join("portcullis.yaml"), file(&[&backend])).unwrap();
    let socket = folder.path().join("notify");
    let program = Portcullis::start_with(folder, &["run", "-c", "portcullis.yaml"], |command| {
        command.env("NOTIFY_SOCKET", socket);
    });
    let program = Arc::new(program);
    let told = || {
        let mut text = [0; 1024];
        let length = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    assert_eq!(told(), "READY=1\n");
    let done = upgrade(&program).await;
    let pid = said(&done).split_whitespace().nth(1).unwrap().to_owned();
    // The new process says it too, which counts once it is the main one.
    assert_eq!((told(), told()), ("READY=1\n".to_owned(), format!("MAINPID={pid}\nREADY=1\n")));
}
