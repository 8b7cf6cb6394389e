//! A real front door on port 0, with a proxy behind it that answers everything itself.

mod http1;
mod limits;
mod panics;
mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::proxy::{ProxyHttp, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::answer::Refusal;
use crate::config::{Address, Http2, Listener, ListenerLimits, ListenerTimeouts, ProxyProtocol, Tls};
use crate::server::connection::{Connection, Exchanging, InFlight, current};
use crate::server::front::{Front, Shared};
use crate::server::limits::TotalLimit;
use crate::server::listen::{accept_forever, bind};
use crate::server::tls::{TlsState, install_crypto};
use crate::server::workers::Workers;

/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers 200 with what it knows: the method, the path, the body's length, and the connection.
struct Echo;

struct Seen {
    connection: Arc<Connection>,
    _exchanging: Exchanging,
}

#[async_trait]
impl ProxyHttp for Echo {
    type CTX = Seen;

    fn new_ctx(&self) -> Seen {
        let (connection, _) = current().expect("a request has a connection");
        let exchanging = connection.begin_exchange();
        Seen { connection, _exchanging: exchanging }
    }

    async fn request_filter(&self, session: &mut Session, seen: &mut Seen) -> Result<bool> {
        let mut length = 0;
        let path = session.req_header().uri.path().to_owned();
        match path.as_str() {
            "/unread" => return self.answer(session, seen, 0).await,
            "/fails" => return Err(Error::new_in(InternalError)),
            "/endless" => return self.stream_for_ever(session).await,
            "/tunnel" => return self.switch_protocols(session).await,
            _ => {}
        }
        loop {
            match session.read_request_body().await {
                Ok(Some(bytes)) => length += bytes.len(),
                Ok(None) => break,
                Err(_) if seen.connection.body_is_malformed() => {
                    session.respond_error(400).await?;
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        self.answer(session, seen, length).await
    }

    async fn upstream_peer(&self, _session: &mut Session, _seen: &mut Seen) -> Result<Box<HttpPeer>> {
        Err(Error::new_in(InternalError))
    }
}

impl Echo {
    async fn answer(&self, session: &mut Session, seen: &Seen, length: usize) -> Result<bool> {
        let head = session.req_header();
        let tls = seen.connection.tls.as_ref();
        let body = format!(
            "{} {} {length} tls={} sni={} client={} in_flight={}\n",
            head.method,
            head.uri.path(),
            tls.map_or("none", |tls| tls.version),
            tls.and_then(|tls| tls.server_name.as_deref()).unwrap_or("none"),
            tls.is_some_and(|tls| tls.certificate.is_some()),
            seen.connection.in_flight.count(),
        );
        let mut response = ResponseHeader::build(200, Some(2))?;
        response.insert_header("content-length", body.len())?;
        session.write_response_header(Box::new(response), false).await?;
        session.write_response_body(Some(body.into()), true).await?;
        Ok(true)
    }

    async fn stream_for_ever(&self, session: &mut Session) -> Result<bool> {
        let response = ResponseHeader::build(200, None)?;
        session.write_response_header(Box::new(response), false).await?;
        loop {
            session.write_response_body(Some(vec![b'x'; 64 * 1024].into()), false).await?;
        }
    }

    /// Sends back the first bytes of the other protocol.
    async fn switch_protocols(&self, session: &mut Session) -> Result<bool> {
        let mut response = ResponseHeader::build(101, Some(2))?;
        response.insert_header("connection", "upgrade")?;
        response.insert_header("upgrade", "websocket")?;
        session.write_response_header(Box::new(response), false).await?;
        let bytes = session.read_request_body().await?;
        session.write_response_body(bytes, true).await?;
        Ok(true)
    }
}

/// A listener with short deadlines, so that no test has to wait long.
fn listener() -> Listener {
    Listener {
        name: Some("front".into()),
        address: Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
        tls: None,
        http2: Http2::ByAlpn,
        redirect_to_https: None,
        acme_challenges: None,
        max_connections_per_address: None,
        proxy_protocol: ProxyProtocol::None,
        timeouts: ListenerTimeouts {
            handshake: Duration::from_millis(500),
            header: Duration::from_millis(200),
            body: Duration::from_secs(5),
            idle: Duration::from_millis(400),
            write: Duration::from_secs(5),
            request: None,
        },
        limits: ListenerLimits {
            header_size: 16 * 1024,
            headers: 20,
            requests_per_connection: 1000,
            h2_streams: 100,
            min_rate: None,
        },
    }
}

/// A running front door.
struct Door {
    address: Address,
    front: Arc<Front<Echo>>,
    in_flight: Arc<InFlight>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    stop: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Door {
    fn open(config: Listener) -> Self {
        Self::open_with(config, 100)
    }

    fn open_with(config: Listener, most: usize) -> Self {
        install_crypto();
        let listening = bind(&config.address).unwrap();
        let address = listening.local_address().clone();
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let log = refusals.clone();
        let shared = Shared {
            connections: TotalLimit::new(most),
            in_flight: Arc::default(),
            on_refusal: Arc::new(move |_, refusal, _| log.lock().unwrap().push(refusal)),
            trusted_proxies: Arc::default(),
        };
        let in_flight = shared.in_flight.clone();
        let tls = config.tls.as_ref().map(|tls| Arc::new(TlsState::new(tls, config.http2).unwrap()));
        let proxy = Arc::new(http_proxy(&Arc::new(ServerConf::default()), Echo));
        let front = Front::new((0, config), &address, proxy, tls, shared);
        let place = Workers::here().accepting().next().expect("a worker");
        let (stop, stopped) = watch::channel(false);
        let accepting = tokio::spawn(accept_forever(listening, front.clone(), place, stopped));
        Self { address, front, in_flight, refusals, stop, accepting }
    }

    fn plain() -> Self {
        Self::open(listener())
    }

    fn with_tls(tls: Tls) -> Self {
        Self::open(Listener { tls: Some(tls), ..listener() })
    }

    fn tcp(&self) -> SocketAddr {
        match self.address {
            Address::Tcp(address) => address,
            Address::Unix(_) => panic!("a unix socket has no address"),
        }
    }

    async fn connect(&self) -> Raw<TcpStream> {
        Raw(TcpStream::connect(self.tcp()).await.unwrap())
    }

    fn refusals(&self) -> Vec<Refusal> {
        self.refusals.lock().unwrap().clone()
    }
}

/// A client that speaks bytes.
struct Raw<S>(S);

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Raw<S> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // The door may have closed already, which the answer then shows.
        let _ = timeout(DEADLINE, self.0.write_all(bytes.as_ref())).await.expect("the door takes our bytes");
        let _ = self.0.flush().await;
        self
    }

    /// One response with a Content-Length.
    async fn response(&mut self) -> String {
        let mut bytes = Vec::new();
        timeout(DEADLINE, async {
            loop {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head
                        .to_lowercase()
                        .split("content-length: ")
                        .nth(1)
                        .map(|rest| rest.lines().next().unwrap().trim().parse::<usize>().unwrap());
                    if body.len() >= length.unwrap_or(0) {
                        return text;
                    }
                }
                let byte = self.0.read_u8().await.unwrap_or_else(|error| panic!("{error} after {text:?}"));
                bytes.push(byte);
            }
        })
        .await
        .expect("a response in time")
    }

    /// Everything until the door closes.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await.expect("the door closes in time").unwrap();
        String::from_utf8(bytes).unwrap()
    }
}
