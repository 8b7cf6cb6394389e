//! A client that keeps its pace whatever comes back, to measure how long requests wait. For benches/compare; not for use.
//!
//! `paced PORT plain|tls|h2 RATE SECONDS CONNECTIONS PATH` sends so many requests a second over all connections together, at
//! moments drawn by chance, and prints percentiles as JSON. A connection asks one thing at a time; what is due while it waits
//! is sent as soon as it may, and its time counts from when it was due: a proxy that stalls is charged for all who wait.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measuring tool: any mistake may end it")]
#![allow(clippy::disallowed_methods, reason = "each thread has but one connection to wait for")]

#[path = "../tests/support/any_server.rs"]
mod any_server;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use self::any_server::AnyServer;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, kind, rate, seconds, connections, path] = &args[..] else {
        panic!("paced PORT plain|tls|h2 RATE SECONDS CONNECTIONS PATH")
    };
    let (port, rate, seconds): (u16, f64, f64) =
        (port.parse().unwrap(), rate.parse().unwrap(), seconds.parse().unwrap());
    let connections: usize = connections.parse().unwrap();
    let (is_h2, tls) = (kind == "h2", (kind != "plain").then(|| tls(kind == "h2")));
    let begin = Arc::new(Barrier::new(connections));
    let clients: Vec<_> = (0..connections)
        .map(|number| {
            let (tls, begin, path) = (tls.clone(), begin.clone(), path.clone());
            thread::spawn(move || {
                let mut client = Client::connect(port, tls, is_h2, &path);
                client.ask();
                begin.wait();
                pace(&mut client, rate / connections as f64, seconds, number as u64)
            })
        })
        .collect();
    let mut took: Vec<f64> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    took.sort_by(f64::total_cmp);
    let part = |share: f64| took.get(((took.len() as f64 * share) as usize).min(took.len() - 1)).unwrap() * 1e3;
    println!(
        r#"{{"answered": {}, "failed": 0, "rate": {}, "p50_ms": {}, "p99_ms": {}, "p999_ms": {}}}"#,
        took.len(),
        took.len() as f64 / seconds,
        part(0.5),
        part(0.99),
        part(0.999)
    );
}

/// How long each took that was due within this time, in seconds.
fn pace(client: &mut Client, rate: f64, seconds: f64, seed: u64) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let begun = Instant::now();
    let (mut due, mut took) = (0.0, Vec::new());
    loop {
        due += -(1.0 - random.f64()).ln() / rate;
        if due >= seconds {
            return took;
        }
        let moment = begun + Duration::from_secs_f64(due);
        let wait = moment.saturating_duration_since(Instant::now());
        thread::sleep(wait);
        // That this thread sleeps longer than it was told to is no fault of the proxy's.
        let from = if wait.is_zero() { moment } else { Instant::now() };
        client.ask();
        took.push(from.elapsed().as_secs_f64());
    }
}

struct Client {
    stream: Box<dyn Stream>,
    path: String,
    /// The next stream on HTTP/2, which has odd numbers; 0 on HTTP/1.1.
    next: u32,
    seen: Vec<u8>,
}

impl Client {
    fn connect(port: u16, tls: Option<Arc<ClientConfig>>, is_h2: bool, path: &str) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let stream: Box<dyn Stream> = match tls {
            Some(config) => {
                let name = ServerName::try_from("localhost").unwrap();
                Box::new(StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp))
            }
            None => Box::new(tcp),
        };
        let mut client = Self { stream, path: path.to_owned(), next: u32::from(is_h2), seen: Vec::new() };
        if is_h2 {
            client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            client.send(4, 0, 0, &[]);
            // No body that is asked for here uses up so large a window.
            client.send(8, 0, 0, &(1_u32 << 30).to_be_bytes());
        }
        client
    }

    fn ask(&mut self) {
        if self.next == 0 { self.ask_h1() } else { self.ask_h2() }
    }

    fn ask_h1(&mut self) {
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", self.path);
        self.stream.write_all(request.as_bytes()).unwrap();
        let end = loop {
            if let Some(place) = self.seen.windows(4).position(|four| four == b"\r\n\r\n") {
                break place + 4;
            }
            self.fill();
        };
        let head = String::from_utf8_lossy(&self.seen[..end]).to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let whole = end + length.expect("a length").trim().parse::<usize>().unwrap();
        while self.seen.len() < whole {
            self.fill();
        }
        self.seen.drain(..whole);
    }

    fn ask_h2(&mut self) {
        let stream = self.next;
        self.next += 2;
        // :method GET, :scheme https, :path and :authority with names from the static table.
        let mut head = vec![0x82, 0x87, 0x04, self.path.len() as u8];
        head.extend_from_slice(self.path.as_bytes());
        head.extend_from_slice(b"\x01\x09localhost");
        self.send(1, 0x5, stream, &head);
        loop {
            while self.seen.len() < 9 {
                self.fill();
            }
            let length = usize::from(self.seen[0]) << 16 | usize::from(self.seen[1]) << 8 | usize::from(self.seen[2]);
            while self.seen.len() < 9 + length {
                self.fill();
            }
            let frame: Vec<u8> = self.seen.drain(..9 + length).collect();
            let (kind, flags, content) = (frame[3], frame[4], &frame[9..]);
            match kind {
                // Sizes of the table may come first; 0x88 is `:status 200`.
                1 => assert_eq!(content.iter().find(|byte| **byte & 0xe0 != 0x20), Some(&0x88), "another status"),
                3 | 7 => panic!("refused: {content:?}"),
                4 if flags & 1 == 0 => self.send(4, 1, 0, &[]),
                6 if flags & 1 == 0 => self.send(6, 1, 0, content),
                _ => {}
            }
            if kind <= 1 && flags & 1 == 1 {
                return;
            }
        }
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, content: &[u8]) {
        let mut frame = (content.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(content);
        self.stream.write_all(&frame).unwrap();
    }

    fn fill(&mut self) {
        let mut room = [0; 16 << 10];
        let read = self.stream.read(&mut room).unwrap();
        assert_ne!(read, 0, "closed");
        self.seen.extend_from_slice(&room[..read]);
    }
}

/// One cipher and one group, so that all proxies use the same.
fn tls(is_h2: bool) -> Arc<ClientConfig> {
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    });
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let trusting = builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = trusting.with_no_client_auth();
    config.alpn_protocols = vec![if is_h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Arc::new(config)
}
