//! Scripted backends on raw sockets: they answer, and they do everything that a backend should not.
//!
//! A [`Script`] says what happens to each request as a list of [`Act`]s; the usual scripts have names. A backend
//! records each request as it was on the wire and is gone with all its connections when it is dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::bytes_on_the_wire::{Body, Framing, Head, Wire};
use super::tls::{self, Certificate};
use super::{in_time, wait_until};

/// One thing that a backend does with a request whose head it has read.
#[derive(Clone, Debug)]
pub enum Act {
    /// Reads the request's body. A script without it answers early; what was left is read before the next request.
    ReadBody,
    /// Writes these bytes.
    Write(Bytes),
    /// Lets time pass: the backend is slow. (The backend waits, never the test.)
    Delay(Duration),
    /// Goes on when the test calls [`Backend::release`].
    Hold,
    /// Reads and answers nothing more, until the other side closes.
    Hang,
    /// Sends back every byte, until the other side closes.
    Echo,
    /// Closes in order, with FIN.
    Close,
    /// Closes with RST: the other side sees "connection reset".
    Reset,
}

/// What a backend does, request by request; the last answer is repeated.
#[derive(Clone, Debug, Default)]
pub struct Script {
    on_accept: Vec<Act>,
    answers: Vec<Vec<Act>>,
    numbered_by: NumberedBy,
}

/// Which answer a request gets.
#[derive(Clone, Copy, Debug, Default)]
enum NumberedBy {
    #[default]
    Turn,
    TurnOnConnection,
    Path,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub head: Head,
    pub body: Body,
}

/// A scripted server on a port of its own.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    door: Mutex<Door>,
    certificate: Option<Certificate>,
}

struct Shared {
    script: Script,
    tls: Option<TlsAcceptor>,
    connections: AtomicUsize,
    received: Mutex<Vec<Received>>,
    held: Semaphore,
}

enum Door {
    Open { task: JoinHandle<()>, close: oneshot::Sender<()> },
    // Bound and not listening: Linux refuses, and nobody else can take the port meanwhile.
    Refusing { _socket: TcpSocket },
    // The queue of the listener is full and stays so: a connection attempt gets no answer at all.
    Full { _listener: TcpListener, _queued: Vec<std::net::TcpStream> },
    Moving,
}

impl Script {
    /// The first request gets the first answer, whatever its connection, and so on.
    pub fn each(answers: impl IntoIterator<Item = Vec<Act>>) -> Self {
        Script { answers: answers.into_iter().collect(), ..Script::default() }
    }

    /// The first request of each connection gets the first answer, and so on.
    pub fn each_on_a_connection(answers: impl IntoIterator<Item = Vec<Act>>) -> Self {
        Script { numbered_by: NumberedBy::TurnOnConnection, ..Script::each(answers) }
    }

    /// The request for `/0` gets the first answer, and so on, in whatever order they come; one for a path that is no number
    /// gets the last.
    pub fn each_at_its_path(answers: impl IntoIterator<Item = Vec<Act>>) -> Self {
        Script { numbered_by: NumberedBy::Path, ..Script::each(answers) }
    }

    /// Does this before the first byte is read from a connection.
    pub fn on_accept(mut self, acts: impl IntoIterator<Item = Act>) -> Self {
        self.on_accept = acts.into_iter().collect();
        self
    }

    /// Reads the whole request and answers.
    pub fn answering(status: u16, body: &str) -> Self {
        Script::writing(response(status, &[], body))
    }

    /// Reads the whole request and writes these bytes, well formed or not.
    pub fn writing(bytes: impl Into<Bytes>) -> Self {
        Script::each([vec![Act::ReadBody, Act::Write(bytes.into())]])
    }
}

impl Backend {
    /// Answers every request so.
    pub fn answering(status: u16, body: &str) -> Self {
        Backend::scripted(Script::answering(status, body))
    }

    /// Answers every request with these bytes.
    pub fn writing(bytes: impl Into<Bytes>) -> Self {
        Backend::scripted(Script::writing(bytes))
    }

    /// Answers with the name that it was given, so that a test sees who served.
    pub fn named(name: &str) -> Self {
        Backend::answering(200, name)
    }

    /// Answers after this time.
    pub fn slow(first_byte: Duration, body: &str) -> Self {
        Backend::scripted(Script::each([vec![
            Act::ReadBody,
            Act::Delay(first_byte),
            Act::Write(response(200, &[], body)),
        ]]))
    }

    /// Answers each request when the test calls [`Backend::release`].
    pub fn held(body: &str) -> Self {
        Backend::scripted(Script::each([vec![Act::ReadBody, Act::Hold, Act::Write(response(200, &[], body))]]))
    }

    /// Takes requests and never answers.
    pub fn hanging() -> Self {
        Backend::scripted(Script::each([vec![Act::Hang]]))
    }

    /// Resets the connection instead of answering.
    pub fn resetting_before_head() -> Self {
        Backend::scripted(Script::each([vec![Act::ReadBody, Act::Reset]]))
    }

    /// Resets the connection as soon as it is there.
    pub fn resetting_on_accept() -> Self {
        Backend::scripted(Script::default().on_accept([Act::Reset]))
    }

    /// Sends a head and half of the body that it announces, waits for [`Backend::release`], then resets: without the
    /// wait the reset could overtake the bytes before it.
    pub fn resetting_mid_body() -> Self {
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf.";
        Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(half.into()), Act::Hold, Act::Reset]]))
    }

    /// Closes in order after reading the request, without an answer.
    pub fn closing_after_request() -> Self {
        Backend::scripted(Script::each([vec![Act::ReadBody, Act::Close]]))
    }

    /// Announces this length, sends this body, then closes.
    pub fn lying_about_length(announced: usize, body: &str) -> Self {
        let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {announced}\r\n\r\n{body}");
        Backend::scripted(Script::each([vec![Act::ReadBody, Act::Write(bytes.into()), Act::Close]]))
    }

    /// Keeps each connection open after this many answers, as an idle one, and resets it when it is used once more: the
    /// race of a pooled connection that went stale, without the race.
    pub fn stale_after(answers: usize, body: &str) -> Self {
        let answer = vec![Act::ReadBody, Act::Write(response(200, &[], body))];
        let script = std::iter::repeat_n(answer, answers).chain([vec![Act::Reset]]);
        Backend::scripted(Script::each_on_a_connection(script))
    }

    /// Closes each connection after this many answers, without saying so before.
    pub fn closing_after(answers: usize, body: &str) -> Self {
        let answer = vec![Act::ReadBody, Act::Write(response(200, &[], body))];
        let mut script = vec![answer; answers];
        script.last_mut().unwrap().push(Act::Close);
        Backend::scripted(Script::each_on_a_connection(script))
    }

    /// Answers before it has read the request's body.
    pub fn answering_early(status: u16, body: &str) -> Self {
        Backend::scripted(Script::each([vec![Act::Write(response(status, &[], body)), Act::ReadBody]]))
    }

    /// Answers any upgrade with 101 and then sends back every byte. The accept key is not computed: who checks it
    /// needs a real server.
    pub fn upgrading_echo() -> Self {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
        Backend::scripted(Script::each([vec![Act::Write(head.into()), Act::Echo]]))
    }

    /// Follows a script.
    pub fn scripted(script: Script) -> Self {
        Backend::open(script, None)
    }

    /// Follows a script over TLS, with a certificate for `localhost` and `127.0.0.1`.
    pub fn over_tls(script: Script) -> Self {
        let own = own_certificate();
        let config = tls::server(&own, &["http/1.1"]);
        Backend::open(script, Some((own, config)))
    }

    /// The same, for clients that show this certificate and for no others.
    pub fn over_tls_for(client: &Certificate, script: Script) -> Self {
        let own = own_certificate();
        let config = tls::server_for(&own, client, &["http/1.1"]);
        Backend::open(script, Some((own, config)))
    }

    /// A port that refuses connections; [`Backend::restart`] makes it answer 200.
    pub fn refusing() -> Self {
        let socket = bound("127.0.0.1:0".parse().unwrap());
        let address = socket.local_addr().unwrap();
        Backend::at(address, Script::answering(200, "back"), None, Door::Refusing { _socket: socket })
    }

    /// An address where nothing ever answers, not even the kernel: connecting runs into the timeout.
    ///
    /// Linux drops a SYN when the accept queue is full, so the queue is made as short as it goes and filled.
    pub fn black_hole() -> Self {
        let listener = bound("127.0.0.1:0".parse().unwrap()).listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
        let queued = (0..16).map_while(connect).collect::<Vec<_>>();
        assert!(queued.len() < 16, "this kernel does not stop accepting when the queue is full");
        Backend::at(address, Script::default(), None, Door::Full { _listener: listener, _queued: queued })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate it shows.
    pub fn certificate(&self) -> &Certificate {
        self.certificate.as_ref().expect("this backend does not speak TLS")
    }

    /// As the configuration writes it: `http://127.0.0.1:PORT` or `https://...`.
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Requests whose head came so far.
    pub fn requests(&self) -> usize {
        self.shared.received.lock().unwrap().len()
    }

    /// The requests so far, in the order of their heads.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The only request so far.
    pub fn only_request(&self) -> Received {
        let received = self.received();
        assert_eq!(received.len(), 1, "requests received: {received:#?}");
        received.into_iter().next().unwrap()
    }

    /// Waits until so many requests have come.
    pub async fn until_requests(&self, count: usize) {
        wait_until(&format!("the backend should have {count} requests"), || self.requests() >= count).await;
    }

    /// Lets one held request go on.
    pub fn release(&self) {
        self.shared.held.add_permits(1);
    }

    /// Lets all held requests go on, also those to come.
    pub fn release_all(&self) {
        self.shared.held.close();
    }

    /// Refuses connections from now on, and cuts those that are open.
    pub async fn stop(&self) {
        let door = std::mem::replace(&mut *self.door.lock().unwrap(), Door::Moving);
        if let Door::Open { task, close } = door {
            drop(close);
            in_time("the backend should stop", task).await.unwrap();
        }
        *self.door.lock().unwrap() = Door::Refusing { _socket: bound(self.address) };
    }

    /// Accepts connections again, on the same port.
    pub async fn restart(&self) {
        self.stop().await;
        let mut door = self.door.lock().unwrap();
        // The bound socket goes first; nobody else binds a port that was just ours and is asked for by number only here.
        *door = Door::Moving;
        *door = accept(bound(self.address).listen(1024).unwrap(), &self.shared);
    }

    fn open(script: Script, tls: Option<(Certificate, Arc<ServerConfig>)>) -> Self {
        let listener = bound("127.0.0.1:0".parse().unwrap()).listen(1024).unwrap();
        let backend = Backend::at(listener.local_addr().unwrap(), script, tls, Door::Moving);
        *backend.door.lock().unwrap() = accept(listener, &backend.shared);
        backend
    }

    fn at(address: SocketAddr, script: Script, tls: Option<(Certificate, Arc<ServerConfig>)>, door: Door) -> Self {
        let (certificate, config) = tls.unzip();
        let shared = Shared {
            script,
            tls: config.map(TlsAcceptor::from),
            connections: AtomicUsize::new(0),
            received: Mutex::default(),
            held: Semaphore::new(0),
        };
        Backend { address, shared: Arc::new(shared), door: Mutex::new(door), certificate }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Ok(Door::Open { task, .. }) = self.door.get_mut() {
            task.abort();
        }
    }
}

impl Received {
    /// The request's head and body as they were on the wire.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&[&self.head.raw[..], &self.body.raw[..]].concat()).into_owned()
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }
}

/// A response with a `Content-Length`.
pub fn response(status: u16, fields: &[(&str, &str)], body: &str) -> Bytes {
    let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
    let length = body.len();
    format!("HTTP/1.1 {status} Scripted\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into()
}

/// A 200 whose body comes in these chunks, with these trailers.
pub fn chunked_response(chunks: &[&str], trailers: &[(&str, &str)]) -> Bytes {
    let chunks = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect::<String>();
    let trailers = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n{trailers}\r\n").into()
}

fn own_certificate() -> Certificate {
    Certificate::for_names(&["localhost", "127.0.0.1"])
}

pub(super) fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    // A stopped backend comes back on its port while old connections are still in TIME_WAIT.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

fn accept(listener: TcpListener, shared: &Arc<Shared>) -> Door {
    let (close, mut closed) = oneshot::channel();
    let shared = Arc::clone(shared);
    let task = tokio::spawn(async move {
        let mut serving = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                _ = &mut closed => break,
            };
            shared.connections.fetch_add(1, Ordering::SeqCst);
            // An error of the connection is no news: the test judges what the front door made of it.
            serving.spawn(serve(stream, Arc::clone(&shared)));
            while serving.try_join_next().is_some() {}
        }
        drop(listener);
        serving.shutdown().await;
    });
    Door::Open { task, close }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match &shared.tls {
        Some(tls) => converse(Wire::new(tls.accept(stream).await?), &shared).await,
        None => converse(Wire::new(stream), &shared).await,
    }
}

async fn converse<S: Socket>(wire: Wire<S>, shared: &Shared) -> io::Result<()> {
    let mut connection = Connection { wire, shared, unread: None };
    if !connection.follow(&shared.script.on_accept).await? {
        return Ok(());
    }
    let mut requests_here = 0;
    while let Some(head) = connection.wire.head().await? {
        let path = head.first_line.split(' ').nth(1).and_then(|path| path.strip_prefix('/')?.parse().ok());
        let turn = shared.record(head);
        let number = match shared.script.numbered_by {
            NumberedBy::Turn => turn,
            NumberedBy::TurnOnConnection => requests_here,
            NumberedBy::Path => path.unwrap_or(usize::MAX),
        };
        requests_here += 1;
        let answers = &shared.script.answers;
        let Some(answer) = answers.get(number).or(answers.last()) else { break };
        connection.unread = Some(turn);
        if !connection.follow(answer).await? {
            break;
        }
        connection.read_body().await?;
    }
    Ok(())
}

impl Shared {
    /// Keeps a head, and says the how manieth request it is, from 0.
    fn record(&self, head: Head) -> usize {
        let mut received = self.received.lock().unwrap();
        received.push(Received { head, body: Body::default() });
        received.len() - 1
    }
}

struct Connection<'a, S> {
    wire: Wire<S>,
    shared: &'a Shared,
    // The request whose body has not been read yet.
    unread: Option<usize>,
}

impl<S: Socket> Connection<'_, S> {
    /// Says whether the connection lives on.
    async fn follow(&mut self, acts: &[Act]) -> io::Result<bool> {
        for act in acts {
            match act {
                Act::ReadBody => self.read_body().await?,
                Act::Write(bytes) => {
                    self.wire.stream.write_all(bytes).await?;
                    self.wire.stream.flush().await?;
                }
                Act::Delay(time) => sleep_until(Instant::now() + *time).await,
                // A closed semaphore means that nobody is held any more.
                Act::Hold => self.shared.held.acquire().await.map_or((), |permit| permit.forget()),
                Act::Hang => {
                    copy(&mut self.wire.stream, &mut sink()).await?;
                    return Ok(false);
                }
                Act::Echo => {
                    self.echo().await?;
                    return Ok(false);
                }
                Act::Close => {
                    self.wire.stream.shutdown().await?;
                    return Ok(false);
                }
                Act::Reset => {
                    self.wire.stream.reset_when_dropped()?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn read_body(&mut self) -> io::Result<()> {
        let Some(turn) = self.unread.take() else { return Ok(()) };
        let framing = self.shared.received.lock().unwrap()[turn].head.framing(Framing::None);
        let body = self.wire.body(framing).await?;
        self.shared.received.lock().unwrap()[turn].body = body;
        Ok(())
    }

    async fn echo(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.wire.some().await?;
            if bytes.is_empty() {
                return self.wire.stream.shutdown().await;
            }
            self.wire.stream.write_all(&bytes).await?;
            self.wire.stream.flush().await?;
        }
    }
}

/// A stream that can be ended by RST.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send {
    fn reset_when_dropped(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn reset_when_dropped(&self) -> io::Result<()> {
        self.set_zero_linger()
    }
}

impl Socket for TlsStream<TcpStream> {
    fn reset_when_dropped(&self) -> io::Result<()> {
        self.get_ref().0.set_zero_linger()
    }
}
