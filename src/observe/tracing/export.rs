//! Who gets the spans? A collector that takes OTLP over HTTP, in batches.
//!
//! A batch that is refused for the moment is sent again a few times; meanwhile the queue fills, and what it has no room
//! for is dropped. A batch that nobody takes is dropped too, so that what is new has its turn.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Counts, Message, Span, form};
use crate::config;
use crate::fetch::Post;
use crate::observe::seldom::Seldom;

/// Spans of one batch, about: with half a kilobyte each a request of a few hundred.
const BATCH: usize = 512;

/// How long spans wait for others.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a batch is sent.
const TRIES: u32 = 3;

/// Before it is sent again, and twice as long before the next time.
const BACK_OFF: Duration = Duration::from_secs(1);

/// The longest wait that a collector may ask for.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// Who sends.
pub(super) struct Exporter {
    service: String,
    post: Post,
    counts: Arc<Counts>,
    failed: Seldom,
    /// Somebody waits for the end, so nothing is sent again.
    hurries: bool,
}

/// What has come together.
#[derive(Default)]
struct Batch {
    spans: Vec<Span>,
    /// Who waits until they are sent.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Batch {
    fn add(&mut self, message: Message) {
        match message {
            Message::Spans(spans) => self.spans.extend(spans),
            Message::Flush(done) => self.waiting.push(done),
        }
    }

    fn is_due(&self) -> bool {
        self.spans.len() >= BATCH || !self.waiting.is_empty()
    }
}

impl Exporter {
    pub(super) fn new(settings: &config::Tracing, counts: Arc<Counts>) -> Self {
        let mut fields = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let bearer = settings.token.as_ref().map(|token| [b"Bearer ", token.bytes()].concat());
        if let Some(mut bearer) = bearer.and_then(|bearer| HeaderValue::from_bytes(&bearer).ok()) {
            bearer.set_sensitive(true);
            fields.push((AUTHORIZATION, bearer));
        }
        let post = Post::new(settings.otlp.clone(), fields).believing(settings.ca.clone());
        Self { service: settings.service.clone(), post, counts, failed: Seldom::default(), hurries: false }
    }

    /// Until nobody has a queue to it any more, and then what is left.
    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<Message>) {
        while let Some(first) = waiting.recv().await {
            let mut batch = Batch::default();
            batch.add(first);
            let until = Instant::now() + PAUSE;
            while !batch.is_due()
                && let Ok(Some(message)) = timeout_at(until, waiting.recv()).await
            {
                batch.add(message);
            }
            self.hurries = !batch.waiting.is_empty();
            self.send(&batch.spans).await;
        }
    }

    async fn send(&mut self, spans: &[Span]) {
        if spans.is_empty() {
            return;
        }
        let body = Bytes::from(form::request(&self.service, spans));
        let mut pause = BACK_OFF;
        for tried in 1..=TRIES {
            let (why, wait) = match self.post.send(body.clone()).await {
                Ok(reply) if reply.status.is_success() => return self.counts.exported.add(spans.len() as u64),
                Ok(reply) if !is_passing(reply.status) => {
                    self.complain(&format!("status {}: {}", reply.status.as_u16(), reply.words), spans.len());
                    return self.counts.dropped.add(spans.len() as u64);
                }
                Ok(reply) => (format!("status {}: {}", reply.status.as_u16(), reply.words), reply.retry_after),
                Err(why) => (why, None),
            };
            if tried == TRIES || self.hurries {
                self.complain(&why, spans.len());
                break;
            }
            sleep(wait.unwrap_or(pause).min(BACK_OFF_MAX)).await;
            pause *= 2;
        }
        self.counts.dropped.add(spans.len() as u64);
    }

    fn complain(&self, why: &str, count: usize) {
        if let Some(more) = self.failed.may_log() {
            let url = self.post.url();
            log::warn!(
                "tracing: {count} spans were dropped, because {url} did not take them: {why} ({more} more times)"
            );
        }
    }
}

/// Whether the protocol lets the same be sent again.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
