//! Does somebody collect the lines of all machines? Pushes those of the access log to a Loki, in batches.
//!
//! A queue, a batch and a push are all that is ever held: what does not fit is dropped and counted, and no request waits.
//! All lines have the same labels; what tells them apart is in the lines, which are JSON.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::access_log::{Entry, QUEUE};
use super::seldom::Seldom;
use super::stamps::Stamps;
use super::usage::{bearer, longer_each_time};
use super::writing::Room;
use crate::backend::Task;
use crate::config::{self, Login};
use crate::fetch::Post;

/// Bytes of the lines of one push. Loki takes 4 MiB by itself.
const LONGEST: usize = 1 << 20;

/// How often a push is tried before its lines are dropped: with the pauses between, for about a minute.
const TRIES: u32 = 8;

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where lines go in.
#[derive(Debug)]
pub(super) struct Loki {
    queue: mpsc::Sender<Message>,
    room: Arc<Room>,
    dropped: Arc<AtomicU64>,
    _task: Task,
}

#[derive(Debug)]
enum Message {
    Line(Arc<Entry>),
    /// Everything before this has been pushed, or tried once, when the sender is used.
    Last(oneshot::Sender<()>),
}

impl Loki {
    /// Begins to push. Needs a tokio runtime.
    pub(super) fn start(config: &config::Loki) -> Self {
        let (queue, lines) = mpsc::channel(QUEUE);
        let (room, dropped) = (Arc::<Room>::default(), Arc::new(AtomicU64::new(0)));
        let pusher = Pusher {
            post: Post::new(config.url.clone(), fields(config)).believing(config.ca.clone()),
            labels: config.labels.clone(),
            batch: config.batch,
            interval: config.interval,
            room: room.clone(),
            stamps: Stamps::default(),
            dropped: dropped.clone(),
            failures: Seldom::default(),
            is_last: false,
        };
        Self { queue, room, dropped, _task: Task::spawn(pusher.run(lines)) }
    }

    pub(super) fn put(&self, entry: Arc<Entry>) {
        if self.room.takes(&entry) {
            match self.queue.try_reserve() {
                Ok(place) => return place.send(Message::Line(entry)),
                Err(_) => self.room.gives_back(&entry),
            }
        }
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until what is queued has been pushed, for a bounded time.
    pub(super) async fn close(&self, within: Duration) {
        let (done, pushed) = oneshot::channel();
        // Out of time is the end all the same.
        let _ = timeout(within, async {
            if self.queue.send(Message::Last(done)).await.is_ok() {
                let _ = pushed.await;
            }
        })
        .await;
    }
}

fn fields(config: &config::Loki) -> Vec<(HeaderName, HeaderValue)> {
    let login = config.login.as_ref().and_then(|login| match login {
        Login::Bearer(token) => bearer(token.bytes()),
        Login::Basic { user, password } => {
            let pair = BASE64_STANDARD.encode([user.as_bytes(), b":", password.bytes()].concat());
            let mut value = HeaderValue::try_from(format!("Basic {pair}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        }
    });
    let tenant = config.tenant.as_ref().and_then(|tenant| HeaderValue::from_str(tenant).ok());
    let mut fields = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    fields.extend(login.map(|login| (AUTHORIZATION, login)));
    fields.extend(tenant.map(|tenant| (HeaderName::from_static("x-scope-orgid"), tenant)));
    fields
}

struct Pusher {
    post: Post,
    labels: Vec<(String, String)>,
    batch: usize,
    interval: Duration,
    room: Arc<Room>,
    stamps: Stamps,
    dropped: Arc<AtomicU64>,
    failures: Seldom,
    /// There is no time for a second try.
    is_last: bool,
}

/// Lines with the moments at which their requests ended.
#[derive(Default)]
struct Batch {
    lines: Vec<(u128, String)>,
    bytes: usize,
    told: Option<oneshot::Sender<()>>,
}

impl Pusher {
    async fn run(mut self, mut lines: mpsc::Receiver<Message>) {
        while let Some(batch) = self.collect(&mut lines).await {
            self.is_last = batch.told.is_some();
            if !batch.lines.is_empty() {
                let count = batch.lines.len() as u64;
                if !self.push(batch.lines).await {
                    self.dropped.fetch_add(count, Relaxed);
                }
            }
            if let Some(told) = batch.told {
                // Whoever asked may have stopped waiting.
                let _ = told.send(());
            }
        }
    }

    /// Until it is large, or its first line has waited for long enough; `None` when there will be no more.
    async fn collect(&mut self, lines: &mut mpsc::Receiver<Message>) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut due = None;
        while batch.lines.len() < self.batch && batch.bytes < LONGEST {
            let next = match due {
                None => lines.recv().await,
                Some(due) => match timeout_at(due, lines.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                Some(Message::Line(entry)) => {
                    self.room.gives_back(&entry);
                    let line = entry.json(&mut self.stamps);
                    batch.bytes += line.len();
                    batch.lines.push((nanos(entry.ended()), line));
                    due = due.or_else(|| Some(Instant::now() + self.interval));
                }
                Some(Message::Last(told)) => {
                    batch.told = Some(told);
                    break;
                }
                None if batch.lines.is_empty() => return None,
                None => break,
            }
        }
        Some(batch)
    }

    /// Says whether the lines have arrived.
    async fn push(&mut self, mut lines: Vec<(u128, String)>) -> bool {
        // A stream in order costs Loki least.
        lines.sort_by_key(|(at, _)| *at);
        let Ok(body) = body(&self.labels, &lines).map(Bytes::from) else { return false };
        for tries in 0..TRIES {
            let (pause, why) = match self.post.send(body.clone()).await {
                Ok(reply) if reply.status.is_success() => return true,
                Ok(reply) => {
                    let why = format!("status {}: {}", reply.status.as_u16(), reply.words);
                    if !(reply.status == StatusCode::TOO_MANY_REQUESTS || reply.status.is_server_error()) {
                        self.tell(&why, "dropped");
                        return false;
                    }
                    (reply.retry_after.unwrap_or_default(), why)
                }
                Err(why) => (Duration::ZERO, why),
            };
            if self.is_last || tries + 1 == TRIES {
                self.tell(&why, "dropped");
                return false;
            }
            self.tell(&why, "offered again");
            sleep(pause.max(longer_each_time(tries)).min(LONGEST_PAUSE)).await;
        }
        false
    }

    fn tell(&self, why: &str, then: &str) {
        if let Some(more) = self.failures.may_log() {
            let url = self.post.url();
            log::warn!(target: "portcullis::access_log", "{url} does not take lines, which are {then}: {why} ({more} more)");
        }
    }
}

/// What the push API reads.
#[derive(Serialize)]
struct Push<'a> {
    streams: [Stream<'a>; 1],
}

#[derive(Serialize)]
struct Stream<'a> {
    stream: serde_json::Map<String, serde_json::Value>,
    values: Vec<(String, &'a str)>,
}

fn body(labels: &[(String, String)], lines: &[(u128, String)]) -> serde_json::Result<Vec<u8>> {
    let stream = labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let values = lines.iter().map(|(at, line)| (at.to_string(), line.as_str())).collect();
    serde_json::to_vec(&Push { streams: [Stream { stream, values }] })
}

fn nanos(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_that_nobody_believed_could_take_is_dropped_and_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = config::HttpUrl { tls: true, host: "127.0.0.1".into(), port, path: "/".to_owned() };
        let loki = Loki::start(&config::Loki {
            url,
            labels: Vec::new(),
            tenant: None,
            login: None,
            ca: Some(folder.path().join("none.pem")),
            batch: 10,
            interval: Duration::from_secs(3600),
        });
        loki.put(Arc::new(Entry::default()));
        loki.close(Duration::from_secs(5)).await;
        assert_eq!(loki.dropped(), 1);
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "without an authority it is not even asked");
    }

    #[test]
    fn a_push_is_what_lokis_api_reads() {
        let labels = [("job".to_owned(), "portcullis".to_owned()), ("env".to_owned(), "a \"b\"".to_owned())];
        let lines = [(1, "{\"a\":1}".to_owned()), (2, "two".to_owned())];
        let expected =
            r#"{"streams":[{"stream":{"env":"a \"b\"","job":"portcullis"},"values":[["1","{\"a\":1}"],["2","two"]]}]}"#;
        assert_eq!(String::from_utf8(body(&labels, &lines).unwrap()).unwrap(), expected);
    }
}
