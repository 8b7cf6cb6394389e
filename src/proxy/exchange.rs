//! What is remembered of one request? Its snapshot, plan, attempts, lease and timings.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, StatusCode, Version};

use super::again::Retries;
use super::authority::Authority;
use super::cached::Cached;
use super::client::Sender;
use super::connection::{self, Connection, Exchanging};
use super::replay::Place;
use super::snapshot::{Plan, Snapshot};
use super::upload::Upload;
use super::watch::Watch;
use super::why::Why;
use crate::answer::Refusal;
use crate::auth::Identity;
use crate::backend::{Backend, Seat, Tunnel};
use crate::compress::{Decoder, Workshop};
use crate::limit::rate::Standing;
use crate::observe::tracing::{SpanId, Trace};
use crate::retry::Failure;
use crate::upstream::Pick;
use crate::upstream::sticky::Session;

/// One request and its answer.
pub struct Exchange {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) connection: Option<Arc<Connection>>,
    /// Counted in flight until the exchange is dropped.
    pub(super) _in_flight: Option<Exchanging>,
    pub(super) watch: Arc<Watch>,
    pub(super) began: Instant,
    /// As it came in; filters may change the head later.
    pub(super) request: Request,
    pub(super) sender: Sender,
    pub(super) plan: Option<Arc<Plan>>,
    /// Who sent it, where the route asks.
    pub(super) identity: Option<Arc<Identity>>,
    /// What the rate limits of the route said of it.
    pub(super) standings: Vec<Standing>,
    /// The trace that it is in, where requests are traced.
    pub(super) trace: Option<Trace>,
    pub(super) body_seen: u64,
    /// How fast the client sends it, and until when it must be here.
    pub(super) upload: Upload,
    /// When the whole request was here, which is when the route's time begins to run.
    pub(super) request_ended: Option<Instant>,
    /// The attempt that is under way; its lease ends with it.
    pub(super) attempt: Option<Attempt>,
    pub(super) attempts: Vec<Ended>,
    /// After an upgrade: so that it can be cut when its backend is gone.
    pub(super) tunnel: Option<Tunnel>,
    /// The whole response has been read, so that an upload which breaks off afterwards spoils nothing.
    pub(super) response_read: bool,
    pub(super) tried: Vec<Seat>,
    /// Where the client has been before, as its cookie says.
    pub(super) session: Option<Session>,
    /// The next attempt goes to this backend again.
    pub(super) again: Option<Again>,
    pub(super) had_free_try: bool,
    pub(super) retries: Retries,
    /// Where the client's own session is, while another stands in for it.
    pub(super) place: Option<Arc<Place>>,
    pub(super) refusal: Option<Refusal>,
    /// What the cache knows of it, where its route has one.
    pub(super) cached: Option<Box<Cached>>,
    /// Whether the body of its answer is recoded, by a module in the session.
    pub(super) is_recoded: bool,
    /// What takes the coding from the body of the request on its way to the backend.
    pub(super) body_decoder: Option<Box<Decoder>>,
    pub(super) workshop: &'static Workshop,
    /// No client waits for it: it fetches anew what is stale.
    pub(super) in_background: bool,
    /// A number for the head before credentials were taken from it, where a request in the background may need it.
    pub(super) head_as_it_came: Option<u128>,
    /// In the background: the route that its client was admitted to.
    pub(super) admitted_to: Option<Arc<str>>,
    /// What an operator has asked to be told.
    pub(super) why: Option<Box<Why>>,
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
}

/// The request as the client sent it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) id: HeaderValue,
    pub(super) method: Method,
    /// The host and port that it names; `None` until they have been checked.
    pub(super) authority: Option<Arc<Authority>>,
    pub(super) path: String,
    /// How many fields it had.
    pub(super) fields: usize,
}

impl Default for Request {
    fn default() -> Self {
        let id = HeaderValue::from_static("");
        Self { id, method: Method::GET, authority: None, path: String::new(), fields: 0 }
    }
}

impl Request {
    /// In lower case, without a port; empty if it named none.
    pub(super) fn host(&self) -> &str {
        self.authority.as_ref().map_or("", |authority| &authority.host)
    }
}

/// One try at one backend.
pub(super) struct Attempt {
    pub(super) pick: Pick,
    /// On a new connection, whatever is in the pool.
    pub(super) fresh: bool,
    pub(super) began: Instant,
    pub(super) sent: Instant,
    pub(super) phase: Phase,
    /// Whether our watch times the response; else Pingora does, as on a connection that others may share.
    pub(super) timed_by_us: bool,
    /// It was answered by a 429 that is obeyed.
    pub(super) throttled: bool,
    /// What it was answered with, and in which version of HTTP.
    pub(super) status: Option<StatusCode>,
    pub(super) version: Version,
    /// Itself, to whoever traces it.
    pub(super) span: SpanId,
    /// Why no retry follows, if one might have been expected.
    pub(super) no_retry: Option<&'static str>,
}

impl Attempt {
    /// What is remembered of it when it is over.
    pub(super) fn ended(&self, outcome: impl Into<Cow<'static, str>>) -> Ended {
        let Self { began, no_retry, status, span, .. } = *self;
        let backend = self.pick.backend().clone();
        Ended { backend, outcome: outcome.into(), began, took: began.elapsed(), status, span, no_retry }
    }

    /// What an answer with this status is, should it be a failure.
    pub(super) fn answered_with(&self, status: StatusCode) -> Failure {
        if self.throttled { Failure::Throttled } else { Failure::Status(status.as_u16()) }
    }
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The head of the response is not there.
    Waiting,
    /// It is.
    Answered,
    /// It is, and the answer was given up: what comes of it is not passed on.
    Dropped,
    /// It was a 101, and now both sides send what they like.
    Tunnel,
}

/// An attempt that is over.
pub(super) struct Ended {
    pub(super) backend: Arc<Backend>,
    pub(super) outcome: Cow<'static, str>,
    pub(super) began: Instant,
    pub(super) took: Duration,
    /// What it was answered with, if it was.
    pub(super) status: Option<StatusCode>,
    /// Itself, to whoever traces it.
    pub(super) span: SpanId,
    /// Why no retry followed, if one might have been expected.
    pub(super) no_retry: Option<&'static str>,
}

/// The same backend once more.
pub(super) struct Again {
    pub(super) pick: Pick,
    /// On a new connection, whatever is in the pool.
    pub(super) fresh: bool,
}

impl Exchange {
    /// Begins the exchange that this task serves.
    pub(super) fn begin(snapshot: Arc<Snapshot>, workshop: &'static Workshop) -> Self {
        let (connection, watch) = connection::current().unzip();
        Self {
            snapshot,
            _in_flight: connection.as_ref().map(|connection| connection.begin_exchange()),
            connection,
            watch: watch.unwrap_or_else(|| Watch::new(tokio::time::Instant::now())),
            // Not when its watch began: that was when we started to wait for it.
            began: Instant::now(),
            request: Request::default(),
            sender: Sender { client: None, trusted: false },
            plan: None,
            identity: None,
            standings: Vec::new(),
            trace: None,
            body_seen: 0,
            upload: Upload::default(),
            request_ended: None,
            attempt: None,
            attempts: Vec::new(),
            tunnel: None,
            response_read: false,
            tried: Vec::new(),
            session: None,
            again: None,
            had_free_try: false,
            retries: Retries::default(),
            place: None,
            refusal: None,
            cached: None,
            is_recoded: false,
            body_decoder: None,
            workshop,
            in_background: false,
            head_as_it_came: None,
            admitted_to: None,
            why: None,
            connect: None,
            first_byte: None,
        }
    }

    /// Ends the attempt that is under way, if there is one, and gives its lease back.
    pub(super) fn end_attempt(&mut self, outcome: impl Into<Cow<'static, str>>) -> Option<Pick> {
        let attempt = self.let_go()?;
        self.attempts.push(attempt.ended(outcome));
        Some(attempt.pick)
    }

    /// Lets go of the attempt that is under way, if there is one: its lease, its connection and its deadline.
    pub(super) fn let_go(&mut self) -> Option<Attempt> {
        self.watch.rest();
        self.attempt.take()
    }

    /// What is left of the route's time; all of it while the request is still arriving.
    pub(super) fn time_left(&self, now: Instant) -> Duration {
        let timeout = self.plan.as_ref().map_or(Duration::MAX, |plan| plan.timeout);
        self.request_ended.map_or(timeout, |ended| timeout.saturating_sub(now.saturating_duration_since(ended)))
    }
}
