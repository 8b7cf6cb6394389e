//! What else was done for this request, elsewhere? Traces: where a request belongs to, and the spans that are told of it.
//!
//! A [`Tracer`] begins or continues the trace of a request and takes its spans when it is over. Taking never waits: what
//! there is no room for is dropped and counted. How spans are sent is `export`'s affair, which a build may be without.

mod context;
#[cfg(feature = "otlp")]
mod export;
#[cfg(feature = "otlp")]
mod form;

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::sync::{mpsc, oneshot};

use crate::config;
use crate::count::Count;

pub use self::context::{Parent, SpanId, TRACEPARENT, TRACESTATE, TraceId};

/// Requests whose spans may wait. A collector that is away for some seconds loses nothing at a hundred sampled requests a
/// second; with about a kilobyte each, one that never comes back costs 4 MiB.
#[cfg(feature = "otlp")]
const QUEUE: usize = 4096;

/// The trace of one request.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// Its number.
    pub id: TraceId,
    /// The span that the client has sent the request from; `None` where the trace begins here.
    pub parent: Option<SpanId>,
    /// The span of the request.
    pub span: SpanId,
    /// Whether its spans are told.
    pub is_sampled: bool,
}

impl Trace {
    /// What a backend is told, whose request is sent from this span.
    pub fn parent_for(&self, span: SpanId) -> Parent {
        Parent { trace: self.id, span, is_sampled: self.is_sampled }
    }
}

/// From whose point of view a span is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We were asked.
    Server,
    /// We have asked.
    Client,
}

/// What is told of something that took its time.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace that it is in.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// The span that it is part of.
    pub parent: Option<SpanId>,
    /// Whose point of view it is.
    pub role: Role,
    /// What was done.
    pub name: String,
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What else is known, by the names of OpenTelemetry's conventions for HTTP, or of ours.
    pub attributes: Vec<(&'static str, Value)>,
    /// Why it failed, if it did.
    pub error: Option<Cow<'static, str>>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// A whole number.
    Number(u64),
}

/// What became of spans; it outlives reloads.
#[derive(Debug, Default)]
pub struct Counts {
    /// A collector has taken them.
    pub exported: Count,
    /// There was no room for them, or nobody took them.
    pub dropped: Count,
}

/// What waits to be sent.
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "nobody reads it without an exporter"))]
enum Message {
    Spans(Vec<Span>),
    /// All before this has been sent, or given up, when the sender is dropped.
    Flush(oneshot::Sender<()>),
}

/// Who traces requests.
pub struct Tracer {
    settings: config::Tracing,
    queue: mpsc::Sender<Message>,
    counts: Arc<Counts>,
}

impl Tracer {
    /// Traces with these settings; needs a tokio runtime.
    #[cfg(feature = "otlp")]
    pub fn open(settings: &config::Tracing, counts: &Arc<Counts>) -> Arc<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(export::Exporter::new(settings, counts.clone()).run(waiting));
        Arc::new(Self { settings: settings.clone(), queue, counts: counts.clone() })
    }

    /// The same in a build that sends nothing: the configuration does not allow `tracing` there.
    #[cfg(not(feature = "otlp"))]
    pub fn open(settings: &config::Tracing, counts: &Arc<Counts>) -> Arc<Self> {
        let (queue, _) = mpsc::channel(1);
        Arc::new(Self { settings: settings.clone(), queue, counts: counts.clone() })
    }

    /// The trace of a request with these fields: that of the client, or a new one. Whether it is sampled the client says
    /// where it is believed; else chance does.
    pub fn begin(&self, fields: &HeaderMap, is_trusted: bool) -> Trace {
        let parent = Parent::of(fields);
        let is_believed = match self.settings.from {
            config::TraceFrom::Any => true,
            config::TraceFrom::Trusted => is_trusted,
        };
        let decided = parent.filter(|_| is_believed).map(|parent| parent.is_sampled);
        Trace {
            id: parent.map_or_else(TraceId::new, |parent| parent.trace),
            parent: parent.map(|parent| parent.span),
            span: SpanId::new(),
            is_sampled: decided.unwrap_or_else(|| fastrand::f64() < self.settings.sample),
        }
    }

    /// Takes the spans of a request, or drops them where there is no room.
    pub fn take(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        if self.queue.try_send(Message::Spans(spans)).is_err() {
            self.counts.dropped.add(count);
        }
    }

    /// Waits until what was taken so far has been sent, or given up.
    pub async fn flush(&self) {
        let (done, ended) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            // That it was dropped is what is waited for.
            let _ = ended.await;
        }
    }
}

/// The tracer that is in use; it outlives reloads that do not change its settings.
#[derive(Default)]
pub struct Tracers {
    now: Mutex<Option<Arc<Tracer>>>,
    /// What became of the spans of all there were.
    pub counts: Arc<Counts>,
}

impl Tracers {
    /// The tracer with these settings, which is the one that is in use if it has them.
    pub fn with(&self, settings: Option<&config::Tracing>) -> Option<Arc<Tracer>> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |tracer: &&Arc<Tracer>| settings.is_some_and(|settings| tracer.settings == *settings);
        *now =
            settings.map(|new| now.as_ref().filter(same).cloned().unwrap_or_else(|| Tracer::open(new, &self.counts)));
        now.clone()
    }

    /// Waits until the tracer in use has sent what it has, or has given it up.
    pub async fn flush(&self) {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(tracer) = now {
            tracer.flush().await;
        }
    }
}

impl fmt::Debug for Tracers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracers").field("counts", &self.counts).finish_non_exhaustive()
    }
}

#[cfg(feature = "otlp")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HttpUrl, TraceFrom, Tracing};

    fn tracer(sample: f64, from: TraceFrom) -> Arc<Tracer> {
        let otlp = HttpUrl { tls: false, host: "127.0.0.1".into(), port: 1, path: "/".into() };
        let settings = Tracing { otlp, sample, from, service: "test".into(), token: None, ca: None };
        Tracer::open(&settings, &Arc::default())
    }

    fn fields(flags: &str) -> HeaderMap {
        let value = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        [(TRACEPARENT, value.parse().unwrap())].into_iter().collect()
    }

    #[tokio::test]
    async fn a_trace_goes_on_and_only_who_is_believed_says_whether_it_is_sampled() {
        for (sample, from, flags, is_trusted, expected) in [
            (0.0, TraceFrom::Any, "01", false, true),
            (1.0, TraceFrom::Any, "00", false, false),
            (0.0, TraceFrom::Trusted, "01", false, false),
            (1.0, TraceFrom::Trusted, "00", false, true),
            (0.0, TraceFrom::Trusted, "01", true, true),
            (1.0, TraceFrom::Trusted, "00", true, false),
        ] {
            let trace = tracer(sample, from).begin(&fields(flags), is_trusted);
            assert_eq!(trace.id.to_string(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(trace.parent.unwrap().to_string(), "b7ad6b7169203331");
            assert_eq!(trace.is_sampled, expected, "{sample} {from:?} {flags} {is_trusted}");
        }
    }

    #[tokio::test]
    async fn a_request_without_a_trace_begins_one_of_its_own() {
        let tracer = tracer(0.25, TraceFrom::Any);
        let traces: Vec<_> = (0..4000).map(|_| tracer.begin(&HeaderMap::new(), false)).collect();
        let sampled = traces.iter().filter(|trace| trace.is_sampled).count();
        assert!((800..1200).contains(&sampled), "{sampled} of 4000");
        assert!(traces.iter().all(|trace| trace.parent.is_none()));
        assert_ne!(traces[0].id, traces[1].id);
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_dropped_and_counted() {
        let tracer = tracer(1.0, TraceFrom::Any);
        // Nothing takes them here: the exporter does not run before this gives way.
        (0..QUEUE + 3).for_each(|_| tracer.take(Vec::from([span(), span()])));
        assert_eq!(tracer.counts.dropped.get(), 6);
    }

    fn span() -> Span {
        Span {
            trace: TraceId::new(),
            id: SpanId::new(),
            parent: None,
            role: Role::Server,
            name: String::new(),
            began: SystemTime::UNIX_EPOCH,
            took: Duration::ZERO,
            attributes: Vec::new(),
            error: None,
        }
    }
}
