//! How do events get from the spool to whoever takes them? In batches, again and again until they are taken.
//!
//! Nothing but an answer of 2xx means that they are: whoever refuses them with 400 has them offered again too, less and
//! less often, because only the operator knows whether they may be lost.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use super::spool::{Batch, Owner, Shelf};
use crate::config::UsageHttp;
use crate::fetch::Post;
use crate::observe::seldom::Seldom;

/// How often somebody looks for what others have left, and for what went wrong on the way here.
const LOOK_AROUND: Duration = Duration::from_secs(10);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Who sends the events of a spool.
pub(super) struct Shipper {
    post: Post,
    shelf: Arc<Shelf>,
    /// The most events of a request: less than what is configured while those are too large.
    most: usize,
    batch: usize,
    interval: Duration,
    /// Events that have arrived.
    arrived: u64,
    failures: Seldom,
}

impl Shipper {
    pub(super) fn new(config: &UsageHttp, shelf: Arc<Shelf>) -> Self {
        let mut fields = vec![(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
        fields.extend(config.token.as_ref().and_then(|token| Some((AUTHORIZATION, bearer(token.bytes())?))));
        Self {
            post: Post::new(config.url.clone(), fields).believing(config.ca.clone()),
            shelf,
            most: config.batch,
            batch: config.batch,
            interval: config.interval,
            arrived: 0,
            failures: Seldom::default(),
        }
    }

    /// For ever: first what was left, then what comes.
    pub(super) async fn run(mut self) {
        let mut least = self.batch as u64;
        loop {
            if let Err(error) = self.send_all(least).await {
                self.tell(format_args!("the spool of usage events cannot be read or written: {error}"));
                sleep(longer_each_time(1)).await;
            }
            least = self.wait_for_more().await;
        }
    }

    /// Waits until a batch is full, or its first event has waited for long enough; gives how many are a batch then.
    async fn wait_for_more(&self) -> u64 {
        let (mut due, around) = (None, Instant::now() + LOOK_AROUND);
        loop {
            let waiting = self.shelf.written.load(Relaxed).saturating_sub(self.arrived);
            if waiting >= self.batch as u64 {
                return self.batch as u64;
            }
            if waiting > 0 {
                due.get_or_insert_with(|| Instant::now() + self.interval);
            }
            tokio::select! {
                () = self.shelf.news.notified() => {}
                () = sleep_until(due.unwrap_or(around)) => return 1,
            }
        }
    }

    /// What others have left, and of our own what was there when this began, unless fewer than `least` are left of it: those
    /// wait for more.
    async fn send_all(&mut self, least: u64) -> std::io::Result<()> {
        let shelf = self.shelf.clone();
        let written = shelf.written.load(Relaxed);
        let owners = beside(move || shelf.owners()).await??;
        for mut owner in owners {
            let is_own = owner.boot() == self.shelf.boot();
            while !is_own || written.saturating_sub(self.arrived) >= least {
                let (shelf, most) = (self.shelf.clone(), self.most);
                let (back, batch) = beside(move || {
                    let batch = owner.next(&shelf, most);
                    (owner, batch)
                })
                .await?;
                owner = back;
                let Some(batch) = batch? else {
                    // What could not be read is not waited for.
                    self.arrived = if is_own { self.arrived.max(written) } else { self.arrived };
                    break;
                };
                owner = self.send(owner, batch).await?;
            }
        }
        self.tell_corrupt();
        Ok(())
    }

    /// Sends a batch until it is taken; or reads it anew, where it is too large.
    async fn send(&mut self, mut owner: Owner, batch: Batch) -> std::io::Result<Owner> {
        let lines = Bytes::from(batch.lines);
        for tries in 0_u32.. {
            let pause = match self.post.send(lines.clone()).await {
                Ok(reply) if reply.status.is_success() => {
                    self.most = self.batch.min(self.most.saturating_mul(2));
                    if owner.boot() == self.shelf.boot() {
                        self.arrived += batch.events as u64;
                    }
                    let shelf = self.shelf.clone();
                    return beside(move || owner.has_sent(&shelf, batch.then).map(|()| owner)).await?;
                }
                Ok(reply) if reply.status == StatusCode::PAYLOAD_TOO_LARGE && batch.events > 1 => {
                    self.most = batch.events / 2;
                    return Ok(owner);
                }
                Ok(reply) => {
                    let (url, status) = (self.post.url(), reply.status.as_u16());
                    self.tell(format_args!("{url} does not take usage events: status {status}: {}", reply.words));
                    reply.retry_after.unwrap_or_default()
                }
                Err(why) => {
                    self.tell(format_args!("{} does not take usage events: {why}", self.post.url()));
                    Duration::ZERO
                }
            };
            sleep(pause.max(longer_each_time(tries)).min(LONGEST_PAUSE)).await;
        }
        Ok(owner)
    }

    fn tell(&self, what: std::fmt::Arguments<'_>) {
        if let Some(more) = self.failures.may_log() {
            log::warn!(target: "portcullis::access_log", "{what}; they wait in the spool ({more} more)");
        }
    }

    fn tell_corrupt(&self) {
        let corrupt = self.shelf.corrupt();
        if corrupt > 0 && self.failures.may_log().is_some() {
            log::warn!(target: "portcullis::access_log", "{corrupt} lines of the spool were no usage events");
        }
    }
}

/// Half a second, and twice as long after each failure, with chance in it.
pub(in crate::observe) fn longer_each_time(tries: u32) -> Duration {
    let most = Duration::from_millis(500).saturating_mul(1 << tries.min(8));
    most.mul_f64(0.5 + 0.5 * fastrand::f64())
}

pub(in crate::observe) fn bearer(token: &[u8]) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads and writes files where nobody waits for it.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    spawn_blocking(work).await.map_err(std::io::Error::other)
}
