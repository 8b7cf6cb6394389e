//! How is it said? Answers as bytes, each with its deadline, and events for as long as somebody listens.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::DEADLINE;
use super::head::{HEAD, Head};
use super::operator::{Operator, Reply};
use super::page::{FIELDS, File};
use crate::server::watching::{Listener, News};

/// A listener that hears nothing for so long is told that we are still there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// One answer.
pub(super) struct Answer {
    status: &'static str,
    kind: &'static str,
    body: Cow<'static, str>,
    fields: Vec<(&'static str, String)>,
    head_only: bool,
}

impl Answer {
    /// A few words for a probe.
    pub(super) fn text(status: &'static str, words: impl Into<String>) -> Self {
        let body = Cow::Owned(words.into() + "\n");
        Self { status, kind: "text/plain; charset=utf-8", body, fields: Vec::new(), head_only: false }
    }

    /// The same of another type.
    pub(super) fn of_kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// A file of the page.
    pub(super) fn page(file: File) -> Self {
        let fields = FIELDS.map(|(name, value)| (name, value.to_owned())).into();
        Self { kind: file.kind(), body: Cow::Borrowed(file.text()), fields, ..Self::text("200 OK", "") }
    }

    /// The head of a stream of events.
    pub(super) fn of_events() -> Self {
        let answer = Self { kind: "text/event-stream", body: Cow::Borrowed(""), ..Self::text("200 OK", "") };
        // Whoever stands between shall not gather what is to come at once.
        answer.field("X-Accel-Buffering", "no".to_owned())
    }

    /// The methods that there are, where one is not.
    pub(super) fn allow(self, methods: String) -> Self {
        self.field("Allow", methods)
    }

    /// Without its body if that was asked for.
    pub(super) fn without_body_for(self, head: &Head) -> Self {
        Self { head_only: head.method == "HEAD", ..self }
    }

    fn field(mut self, name: &'static str, value: String) -> Self {
        self.fields.push((name, value));
        self
    }

    fn head(&self, length: Option<usize>) -> String {
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = length.map(|length| format!("Content-Length: {length}\r\n")).unwrap_or_default();
        let (status, kind) = (self.status, self.kind);
        format!(
            "HTTP/1.1 {status}\r\n{fields}Content-Type: {kind}\r\n{length}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
    }

    /// Sends it, and closes.
    pub(super) async fn send(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut text = self.head(Some(self.body.len()));
        if !self.head_only {
            text.push_str(&self.body);
        }
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing while bytes are unread would reset the connection, and the client might lose the answer.
        tokio::io::copy(&mut stream.take(HEAD as u64 * 8), &mut tokio::io::sink()).await.map(drop)
    }
}

impl From<Reply> for Answer {
    fn from(Reply { status, kind, body }: Reply) -> Self {
        let challenge =
            status.starts_with("401").then(|| ("WWW-Authenticate", "Bearer realm=\"portcullis\"".to_owned()));
        let safe = ["X-Content-Type-Options", "Cross-Origin-Resource-Policy"];
        let safe =
            FIELDS.iter().filter(|(name, _)| safe.contains(name)).map(|(name, value)| (*name, (*value).to_owned()));
        let fields = safe.chain(challenge).collect();
        Self { kind, fields, body: Cow::Owned(body + "\n"), ..Self::text(status, "") }
    }
}

/// Tells a listener everything, and then what changes, until it goes or nobody has anything to tell.
pub(super) async fn stream_events(
    Listener { first, mut news }: Listener,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    operator: &dyn Operator,
) -> io::Result<()> {
    write(&mut stream, Answer::of_events().head(None).as_bytes()).await?;
    tell(&mut stream, &first).await?;
    let mut ignored = [0; 64];
    loop {
        let heard = tokio::select! {
            heard = timeout(HEARTBEAT, news.recv()) => heard,
            read = stream.read(&mut ignored) => match read? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        match heard {
            Ok(Ok(heard)) => tell(&mut stream, &heard).await?,
            Ok(Err(RecvError::Lagged(_))) => {
                // What it has missed is in everything; what is still to come may be older, and is passed over.
                news = news.resubscribe();
                tell(&mut stream, &operator.told_so_far()).await?;
            }
            Ok(Err(RecvError::Closed)) => return Ok(()),
            Err(_) => write(&mut stream, b": still here\n\n").await?,
        }
    }
}

async fn tell(stream: &mut (impl AsyncWrite + Unpin), News { event, data }: &News) -> io::Result<()> {
    write(stream, format!("event: {event}\ndata: {data}\n\n").as_bytes()).await
}

/// A listener that takes nothing for this long is gone.
async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    timeout(DEADLINE, async {
        stream.write_all(bytes).await?;
        stream.flush().await
    })
    .await?
}
