//! Clients that hide nothing: raw bytes over TCP, TLS or a unix socket, and HTTP/2 with its trailers.

use std::net::SocketAddr;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bytes_on_the_wire::{Framing, Head, Wire, value};
use super::tls::{self, Offer};
use super::{DEADLINE, in_time};

/// A connection whose bytes the test writes itself.
pub struct Client {
    wire: Wire<Box<dyn Stream>>,
    /// What the TLS handshake agreed on.
    pub handshake: Option<Handshake>,
}

/// What a TLS handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The leaf certificate, in DER.
    pub certificate: Vec<u8>,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<String>,
    pub version: rustls::ProtocolVersion,
    pub resumed: bool,
}

/// A response as it came.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// The fields in their order and spelling.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub trailers: Vec<(String, String)>,
    /// Head and body as they were on the wire.
    pub raw: Bytes,
    pub framing: Framing,
}

/// A stream of bytes, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Client {
    pub async fn tcp(address: SocketAddr) -> Self {
        Client::over(connect(address).await)
    }

    pub async fn unix(path: &Path) -> Self {
        Client::over(in_time("connecting to a unix socket", UnixStream::connect(path)).await.unwrap())
    }

    /// TLS with SNI `name`, any certificate, and ALPN `http/1.1`.
    pub async fn tls(address: SocketAddr, name: &str) -> Self {
        let offer = Offer { alpn: &["http/1.1"], ..Offer::default() };
        Client::tls_with(address, name, &offer).await.unwrap()
    }

    /// TLS as the test asks for it; the error is the handshake's.
    pub async fn tls_with(address: SocketAddr, name: &str, offer: &Offer<'_>) -> std::io::Result<Self> {
        let stream = handshake(address, name, offer).await?;
        let (_, session) = stream.get_ref();
        let handshake = Handshake {
            certificate: session.peer_certificates().unwrap()[0].to_vec(),
            alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            version: session.protocol_version().unwrap(),
            resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        };
        Ok(Client { handshake: Some(handshake), ..Client::over(stream) })
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Client { wire: Wire::new(Box::new(stream)), handshake: None }
    }

    /// Sends bytes, just these.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends bytes to a peer that may be gone.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let stream = &mut self.wire.stream;
        in_time("sending", async {
            stream.write_all(bytes.as_ref()).await?;
            stream.flush().await
        })
        .await
    }

    /// Sends FIN (and close_notify on TLS); reading goes on.
    pub async fn finish(&mut self) {
        self.wire.stream.shutdown().await.unwrap();
    }

    /// The next response, 1xx included.
    pub async fn read_response(&mut self) -> Response {
        self.try_read_response(Framing::UntilClose).await.unwrap()
    }

    /// The response to a HEAD: whatever its fields announce, no body follows.
    pub async fn read_response_to_head(&mut self) -> Response {
        self.try_read_response(Framing::None).await.unwrap()
    }

    /// The next response; the error is one of the connection or of the framing. `Framing::None` says that no body
    /// can follow; anything else lets the response say it.
    pub async fn try_read_response(&mut self, body: Framing) -> std::io::Result<Response> {
        let reading = async {
            let head = self.wire.head().await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            let status = head.first_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            let bodiless = body == Framing::None || matches!(status, 100..=199 | 204 | 304);
            let framing = if bodiless { Framing::None } else { head.framing(Framing::UntilClose) };
            let body = self.wire.body(framing).await?;
            let raw = Bytes::from([&head.raw[..], &body.raw[..]].concat());
            Ok(Response { status, headers: head.fields, body: body.content, trailers: body.trailers, raw, framing })
        };
        in_time("reading a response", reading).await
    }

    /// The head of the next response; its body is left.
    pub async fn read_head(&mut self) -> Head {
        in_time("reading a head", self.wire.head()).await.unwrap().expect("closed before a head")
    }

    /// The content of the next chunk of a body; empty for the last one.
    pub async fn read_chunk(&mut self) -> std::io::Result<Bytes> {
        Ok(in_time("reading a chunk", self.wire.chunk()).await?.1)
    }

    /// Whatever comes next; nothing at the end.
    pub async fn read_some(&mut self) -> std::io::Result<Bytes> {
        in_time("reading something", self.wire.some()).await
    }

    /// Sends bytes and reads the response.
    pub async fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request).await;
        self.read_response().await
    }

    /// Just so many bytes.
    pub async fn read_exactly(&mut self, length: usize) -> Bytes {
        in_time("reading", self.wire.exactly(length)).await.unwrap()
    }

    /// Everything until the peer closes in order.
    pub async fn read_to_end(&mut self) -> Bytes {
        self.try_read_to_end().await.unwrap()
    }

    /// Everything until the peer closes; the error is, for one, a reset.
    pub async fn try_read_to_end(&mut self) -> std::io::Result<Bytes> {
        in_time("reading to the end", self.wire.rest()).await
    }

    /// Panics unless the peer closes without another byte; a reset counts as closing, and so does TLS without a word.
    pub async fn expect_closed(&mut self) {
        match self.try_read_to_end().await {
            Ok(rest) => assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest)),
            Err(error) => {
                let gone = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::UnexpectedEof];
                assert!(gone.contains(&error.kind()), "{error}");
            }
        }
    }
}

impl Response {
    /// The first value of a field, in any spelling.
    pub fn field(&self, name: &str) -> Option<&str> {
        value(&self.headers, name)
    }

    /// All values of a field, in any spelling.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// An HTTP/2 connection.
pub struct H2Client {
    requests: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
    origin: String,
}

/// A response over HTTP/2.
#[derive(Clone, Debug)]
pub struct H2Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl H2Client {
    /// Over TLS, with `h2` by ALPN; `name` is SNI and authority.
    pub async fn tls(address: SocketAddr, name: &str) -> Self {
        H2Client::tls_with(address, name, &Offer { alpn: &["h2"], ..Offer::default() }).await
    }

    /// The same with a certificate, say.
    pub async fn tls_with(address: SocketAddr, name: &str, offer: &Offer<'_>) -> Self {
        let stream = handshake(address, name, offer).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the front door should offer h2");
        H2Client::over(stream, format!("https://{name}:{}", address.port())).await
    }

    /// Without TLS, by prior knowledge.
    pub async fn plain(address: SocketAddr) -> Self {
        H2Client::over(connect(address).await, format!("http://{address}")).await
    }

    async fn over(stream: impl Stream + 'static, origin: String) -> Self {
        let (requests, connection) = in_time("the HTTP/2 preface", h2::client::handshake(stream)).await.unwrap();
        H2Client { requests, connection: tokio::spawn(connection), origin }
    }

    pub async fn get(&self, path: &str) -> H2Response {
        self.request(self.build("GET", path), &[]).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &str) -> H2Response {
        self.request(self.build("POST", path), &[body]).await.unwrap()
    }

    /// A request for this connection's origin, for the test to change.
    pub fn build(&self, method: &str, path: &str) -> Request<()> {
        Request::builder().method(method).uri(format!("{}{path}", self.origin)).body(()).unwrap()
    }

    /// Sends a head, and leaves the body to the test.
    pub async fn open(&self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        let mut requests = in_time("a stream", self.requests.clone().ready()).await.unwrap();
        requests.send_request(request, false).unwrap()
    }

    /// Sends each part of the body as one DATA frame, as flow control allows, and reads the whole response.
    pub async fn request(&self, request: Request<()>, body: &[&str]) -> Result<H2Response, h2::Error> {
        let exchange = async {
            let mut requests = self.requests.clone().ready().await?;
            let (response, mut sending) = requests.send_request(request, body.is_empty())?;
            for (number, part) in body.iter().enumerate() {
                let last = number + 1 == body.len();
                sending.send_data(Bytes::copy_from_slice(part.as_bytes()), last)?;
            }
            let (head, mut receiving) = response.await?.into_parts();
            let mut body = BytesMut::new();
            while let Some(part) = receiving.data().await {
                let part = part?;
                receiving.flow_control().release_capacity(part.len())?;
                body.extend_from_slice(&part);
            }
            let trailers = receiving.trailers().await?;
            Ok(H2Response { status: head.status, headers: head.headers, body: body.freeze(), trailers })
        };
        in_time("an exchange over HTTP/2", exchange).await
    }

    /// Waits until the peer has closed the connection, as after GOAWAY.
    pub async fn until_closed(self) -> Result<(), h2::Error> {
        drop(self.requests);
        in_time("the HTTP/2 connection should close", self.connection).await.unwrap()
    }
}

impl H2Response {
    /// The first value of a field, as text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The first value of a trailer, as text.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = tokio::time::timeout(DEADLINE, TcpStream::connect(address)).await;
    let stream = stream.unwrap_or_else(|_| panic!("{address} should accept")).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn handshake(address: SocketAddr, name: &str, offer: &Offer<'_>) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = connect(address).await;
    in_time("the TLS handshake", TlsConnector::from(tls::client(offer)).connect(name, stream)).await
}
