//! What does a URL say, and does it take what we have for it? One GET or POST for what we need ourselves: a list of
//! backends, a set of keys; usage events, lines of the log.
//!
//! The connection is Pingora's, as those to backends are, and a new one each time. The answer is bounded in size and in
//! time. Redirects are not followed. What is sent as a credential is in no message.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{WrappedX509, parse_x509};
use tokio::net::lookup_host;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::HttpUrl;
use crate::config::certificate;

/// For one answer, from the look-up of the name to its last byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of the name that are tried.
const ADDRESSES: usize = 3;

/// Bytes of an answer to a POST that are read: it is there to be told in a log.
const LONGEST_REPLY: usize = 64 << 10;

/// Letters of it that are told.
const TOLD: usize = 200;

/// A URL, and how much may be there.
pub struct Fetch {
    caller: Caller,
    longest: usize,
}

impl Fetch {
    /// What is at this URL, in at most so many bytes.
    pub fn new(url: HttpUrl, longest: usize) -> Self {
        Self { caller: Caller::new(url, None), longest }
    }

    /// Where it is.
    pub fn url(&self) -> &HttpUrl {
        &self.caller.url
    }

    /// Asks for it, or says why there is nothing.
    pub async fn ask(&mut self) -> Result<Vec<u8>, String> {
        let fields = [(ACCEPT, HeaderValue::from_static("application/json"))];
        let answer = self.caller.call("GET", &fields, None, self.longest).await?;
        match answer.status {
            StatusCode::OK => answer.body,
            status => Err(format!("status {}", status.as_u16())),
        }
    }
}

/// A URL that takes what is posted to it.
pub struct Post {
    caller: Caller,
    fields: Vec<(HeaderName, HeaderValue)>,
}

/// What was said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// How long nothing shall be sent.
    pub retry_after: Option<Duration>,
    /// The beginning of the answer, in visible letters.
    pub words: String,
}

impl Post {
    /// A URL, and the fields of each request.
    pub fn new(url: HttpUrl, fields: Vec<(HeaderName, HeaderValue)>) -> Self {
        Self { caller: Caller::new(url, None), fields }
    }

    /// The same, which believes the authorities in this file, where there is one, instead of the system's.
    #[must_use]
    pub fn believing(mut self, ca: Option<PathBuf>) -> Self {
        self.caller.ca = ca;
        self
    }

    /// Where it is.
    pub fn url(&self) -> &HttpUrl {
        &self.caller.url
    }

    /// Sends this, and gives what was said; or why nobody has said anything. It may have arrived all the same.
    pub async fn send(&mut self, body: Bytes) -> Result<Reply, String> {
        let answer = self.caller.call("POST", &self.fields, Some(body), LONGEST_REPLY).await?;
        let said = answer.body.unwrap_or_default();
        let words = String::from_utf8_lossy(&said).chars().take(TOLD).flat_map(char::escape_debug).collect();
        Ok(Reply { status: answer.status, retry_after: answer.retry_after, words })
    }
}

/// Who opens connections to one URL.
struct Caller {
    url: HttpUrl,
    /// Read at each call, so that another file counts at once, and one that is broken is told and heals.
    ca: Option<PathBuf>,
    connector: Option<Connector>,
}

struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Result<Vec<u8>, String>,
}

type Fields = [(HeaderName, HeaderValue)];

impl Caller {
    fn new(url: HttpUrl, ca: Option<PathBuf>) -> Self {
        Self { url, ca, connector: None }
    }

    async fn call(
        &mut self,
        method: &str,
        fields: &Fields,
        body: Option<Bytes>,
        longest: usize,
    ) -> Result<Answer, String> {
        let head = request(&self.url, method, fields, body.as_ref()).map_err(said)?;
        let asked = timeout(PATIENCE, self.ask_each_address(head, body, longest)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }

    async fn ask_each_address(
        &mut self,
        head: RequestHeader,
        body: Option<Bytes>,
        longest: usize,
    ) -> Result<Answer, String> {
        let authorities = match self.ca.clone() {
            Some(ca) => Some(spawn_blocking(move || authorities(&ca)).await.map_err(|error| error.to_string())??),
            None => None,
        };
        let addresses = lookup_host((&*self.url.host, self.url.port)).await.map_err(|error| error.to_string())?;
        let mut outcome = Err("its name has no address".to_owned());
        let connector = self.connector.get_or_insert_with(|| connector(self.url.tls && self.ca.is_none()));
        for address in addresses.take(ADDRESSES) {
            let mut peer = HttpPeer::new(address, self.url.tls, self.url.host.to_string());
            peer.options.ca = authorities.clone();
            outcome = exchange(connector, peer, (head.clone(), body.clone()), longest).await;
            // What one of several servers cannot do, another may.
            if outcome.as_ref().is_ok_and(|answer| !answer.status.is_server_error()) {
                break;
            }
        }
        outcome
    }
}

fn said(error: impl std::ops::Deref<Target = pingora::Error>) -> String {
    error.etype().as_str().to_owned()
}

/// Who needs no authorities of the system reads none.
fn connector(needs_those_of_the_system: bool) -> Connector {
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some("/dev/null".to_owned());
    Connector::new((!needs_those_of_the_system).then_some(options))
}

fn authorities(ca: &Path) -> Result<Arc<CaType>, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", ca.display());
    let pem = std::fs::read(ca).map_err(|error| told(&error))?;
    let chain = certificate::chain(&pem).map_err(|error| told(&error))?;
    let wrapped: Vec<_> = chain.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect();
    Ok(wrapped.into())
}

async fn exchange(
    connector: &Connector,
    mut peer: HttpPeer,
    (head, body): (RequestHeader, Option<Bytes>),
    longest: usize,
) -> Result<Answer, String> {
    peer.options.connection_timeout = Some(PATIENCE / 4);
    peer.options.total_connection_timeout = Some(PATIENCE / 4);
    let (mut session, _) = connector.get_http_session(&peer).await.map_err(said)?;
    session.write_request_header(Box::new(head)).await.map_err(said)?;
    if let Some(body) = body {
        session.write_request_body(body, true).await.map_err(said)?;
    }
    session.finish_request_body().await.map_err(said)?;
    session.read_response_header().await.map_err(said)?;
    let head = session.response_header().ok_or_else(|| "no status".to_owned())?;
    let status = head.status;
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut bytes = Vec::new();
    let body = loop {
        match session.read_response_body().await.map_err(said)? {
            Some(part) if bytes.len() + part.len() > longest => {
                break Err(format!("the answer has more than {longest} bytes"));
            }
            Some(part) => bytes.extend_from_slice(&part),
            None => break Ok(bytes),
        }
    };
    session.shutdown().await;
    Ok(Answer { status, retry_after: retry_after.map(Duration::from_secs), body })
}

fn request(url: &HttpUrl, method: &str, fields: &Fields, body: Option<&Bytes>) -> pingora::Result<RequestHeader> {
    let mut request = RequestHeader::build(method, url.path.as_bytes(), None)?;
    request.insert_header(HOST, url.authority())?;
    request.insert_header(USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION")))?;
    request.insert_header(CONNECTION, "close")?;
    if let Some(body) = body {
        request.insert_header(CONTENT_LENGTH, body.len())?;
    }
    for (name, value) in fields {
        request.insert_header(name.clone(), value.clone())?;
    }
    Ok(request)
}
