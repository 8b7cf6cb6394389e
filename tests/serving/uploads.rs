//! Does a body get to a backend that answers meanwhile? Both go on, whichever has more to say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::support;

use support::{Act, Backend, Lb, Script, in_time, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What a backend has seen and done so far.
#[derive(Default)]
struct Progress {
    /// Bytes of the body that have arrived.
    arrived: AtomicUsize,
    /// It cannot write more: there is as much under way as there can be.
    is_full: AtomicBool,
}

/// A backend that answers until the whole body has arrived, as fast as it can.
async fn talkative(length: usize) -> (SocketAddr, Arc<Progress>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let progress = Arc::new(Progress::default());
    let shared = progress.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let (reading, writing) = stream.into_split();
        tokio::spawn(read(reading, shared.clone()));
        answer(writing, shared, length).await;
    });
    (address, progress)
}

async fn read(mut stream: OwnedReadHalf, progress: Arc<Progress>) {
    let mut piece = vec![0; 1 << 16];
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        progress.arrived.fetch_add(length, SeqCst);
    }
}

async fn answer(mut stream: OwnedWriteHalf, progress: Arc<Progress>, length: usize) {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [&b"10000\r\n"[..], &[b'a'; 1 << 16], b"\r\n"].concat();
    while progress.arrived.load(SeqCst) < length {
        let mut left = &chunk[..];
        while !left.is_empty() {
            match stream.try_write(left) {
                Ok(written) => left = &left[written..],
                Err(_) => {
                    progress.is_full.store(true, SeqCst);
                    stream.writable().await.unwrap();
                    progress.is_full.store(false, SeqCst);
                }
            }
        }
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
}

/// Waits until the backend has written all that it can, not only for a moment.
async fn until_ahead(progress: &Progress, or: impl Fn() -> bool) {
    let mut looks = 0;
    wait_until("the backend should be ahead", || {
        looks = if progress.is_full.load(SeqCst) { looks + 1 } else { 0 };
        looks > 3 || or()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_does_not_keep_the_body_from_its_backend() {
    const LENGTH: usize = 50_000;
    // More than there can be under way: whoever reads so much has seen what was written after the body had been sent.
    const ENOUGH: usize = 16 << 20;
    let (address, progress) = talkative(LENGTH).await;
    let lb = Lb::with_urls([format!("http://{address}")]).start().await;
    let mut client = TcpStream::connect(lb.address(0)).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    let has_all = || progress.arrived.load(SeqCst) == LENGTH;
    until_ahead(&progress, || false).await;
    client.write_all(&vec![b'b'; LENGTH]).await.unwrap();
    let (mut bite, mut read) = (vec![0; 1 << 20], 0);
    while !has_all() {
        assert!(read < ENOUGH, "{} bytes of the body have arrived", progress.arrived.load(SeqCst));
        // So the backend is always ahead, and there is never a moment without something of it to be read.
        until_ahead(&progress, has_all).await;
        read += in_time("a bite", client.read(&mut bite)).await.unwrap();
    }
    let mut end = Vec::new();
    while !end.ends_with(b"\r\n0\r\n\r\n") {
        let length = in_time("the rest", client.read(&mut bite)).await.unwrap();
        assert!(length > 0, "closed within the answer");
        end.extend_from_slice(&bite[..length]);
        end.drain(..end.len().saturating_sub(16));
    }
}

/// A backend that writes all of its answer before it reads anything of the body.
async fn answers_first(length: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", length + 4);
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'a'; length]).await.unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        assert!(body.iter().all(|byte| *byte == b'b'));
        stream.write_all(b"all.").await.unwrap();
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_reads_once_it_was_heard_gets_a_body_that_fits_nowhere() {
    // More than the buffers of a connection hold, in either direction.
    const LENGTH: usize = 32 << 20;
    let address = answers_first(LENGTH).await;
    let lb = Lb::with_urls([format!("http://{address}")]).yaml_route("body_limit: 64MiB").start().await;
    let (mut reading, mut writing) = TcpStream::connect(lb.address(0)).await.unwrap().into_split();
    let upload = tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {LENGTH}\r\n\r\n");
        writing.write_all(head.as_bytes()).await.unwrap();
        writing.write_all(&vec![b'b'; LENGTH]).await.unwrap();
        // Dropped it would look as if the client had gone.
        writing
    });
    let mut answer = Vec::new();
    in_time("the whole answer", reading.read_to_end(&mut answer)).await.unwrap();
    let start = answer[..answer.len().min(400)].escape_ascii();
    assert!(answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"aall."), "{} bytes: {start}", answer.len());
    drop(upload);
}

/// The status of the answer to an upload that fits nowhere, to a backend that reads nothing of it. The exchange has ended.
async fn upload_to(backend: Backend) -> u16 {
    const LENGTH: usize = 32 << 20;
    let tls = "tls: { verify: false, server_name: localhost }";
    let lb = Lb::with_backends([&backend]).yaml_upstream(tls).yaml_upstream("timeouts: { write: 1s }");
    let lb = lb.yaml_route("body_limit: 64MiB").start().await;
    let (mut reading, mut writing) = TcpStream::connect(lb.address(0)).await.unwrap().into_split();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    tokio::spawn(async move {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
        writing.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'b'; 1 << 16];
        while writing.write_all(&piece).await.is_ok() {
            counted.fetch_add(piece.len(), SeqCst);
        }
    });
    // More than a first piece: what was written waits at the backend.
    wait_until("some is on its way", || sent.load(SeqCst) > 1 << 20).await;
    backend.release();
    let mut line = [0; 12];
    in_time("an answer", reading.read_exact(&mut line)).await.unwrap();
    lb.until_idle().await;
    std::str::from_utf8(&line[9..]).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_behind_tls_ends() {
    assert_eq!(upload_to(Backend::over_tls(Script::each([vec![Act::Hold, Act::Reset]]))).await, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stands_still_behind_tls_ends() {
    assert_eq!(upload_to(Backend::over_tls(Script::each([vec![Act::Hold, Act::Hold]]))).await, 504);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_an_upload_that_stands_still_is_passed_on_and_the_rest_given_up() {
    let answer = Act::Write("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".into());
    assert_eq!(upload_to(Backend::scripted(Script::each([vec![Act::Hold, answer, Act::Hold]]))).await, 401);
}
