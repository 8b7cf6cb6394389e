//! A panic in the middle of an exchange: it ends that exchange, and what it held is given back.

use std::ops::ControlFlow;
use std::path::PathBuf;

use pingora::http::RequestHeader;

use super::*;
use crate::config::{Expose, Match, Retry, Surroundings, parse};
use crate::filter::{Answer, Chain, Client, Filter};
use crate::proxy::{Admissions, Lasting, Plan, Snapshot};
use crate::route::Table;
use crate::server::FrontDoor;

/// Where a filter panics.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hook {
    Request,
    Forward,
    Body,
    Response,
}

impl Hook {
    fn reached(self, hook: Self) {
        assert_ne!(self, hook, "a panic on purpose");
    }
}

impl Filter for Hook {
    fn on_request(&self, _: &mut RequestHeader, _: &Client) -> ControlFlow<Answer> {
        self.reached(Self::Request);
        ControlFlow::Continue(())
    }

    fn on_forward(&self, _: &mut RequestHeader) -> ControlFlow<Refusal> {
        self.reached(Self::Forward);
        ControlFlow::Continue(())
    }

    fn on_body(&self, _: u64) -> ControlFlow<Refusal> {
        self.reached(Self::Body);
        ControlFlow::Continue(())
    }

    fn on_response(&self, _: &mut ResponseHeader, _: &RequestHeader) {
        self.reached(Self::Response);
    }
}

/// Answers one request a connection.
async fn backend() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"hello") {
                    let read = stream.read_buf(&mut request).await.unwrap_or_default();
                    if read == 0 {
                        return;
                    }
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
            });
        }
    });
    address
}

/// A front door with one backend; its only route has this filter and no other.
async fn open(hook: Hook) -> FrontDoor {
    let yaml = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ app: {{ backends: [\"http://{}\"], health_check: none }} }}\n\
         routes: [{{ upstream: app }}]\nadmin: {{ address: none }}\nlog: {{ access: none, dashboard: none }}\n",
        backend().await
    );
    let config = parse(&yaml, "test.yaml", &Surroundings::of_process(PathBuf::new())).unwrap().config;
    let door = FrontDoor::start(config.clone()).await.unwrap();
    let upstreams = door.inner.snapshot.load().upstreams.clone();
    let plan = Plan {
        priority: 0,
        name: "route".into(),
        counts: Arc::default(),
        upstream: upstreams.get("app").cloned(),
        admission: None,
        filters: Chain::of(vec![Box::new(hook)]),
        timeout: Duration::from_secs(10),
        retry: Retry::none(),
        hedge: None,
        expose: Expose::default(),
        hash_key: None,
        cache: None,
        compress: None,
        body_limit: u64::MAX,
        sticky: None,
    };
    let lasting = Lasting::default();
    let admissions = Admissions::new(&config, &lasting).unwrap();
    let mut snapshot = Snapshot::new(&config, upstreams, admissions, &lasting);
    snapshot.routes = Table::new(vec![(Match::default(), Arc::new(plan))]);
    door.inner.snapshot.store(Arc::new(snapshot));
    door
}

/// What comes back for an upload on a connection of its own.
async fn upload(door: &FrontDoor) -> String {
    let Address::Tcp(address) = door.addresses()[0] else { panic!("a TCP address") };
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    stream.write_all(format!("{head}hello").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("an end");
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn nothing_stays_in_flight_after_a_panic_in_a_filter() {
    for hook in [Hook::Request, Hook::Forward, Hook::Body, Hook::Response] {
        let door = open(hook).await;

        assert_eq!(upload(&door).await, "", "{hook:?}");

        let upstream = door.upstream("app").unwrap();
        let backend = &upstream.members()[0].backend;
        let held = || (door.in_flight(), upstream.in_flight(backend), door.connections());
        let all_given_back = async {
            while held() != (0, 0, 0) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), all_given_back).await.unwrap_or_else(|_| panic!("{hook:?}: {:?}", held()));
    }
}
