//! Which backends does a URL name? A JSON list, asked for again and again.
//!
//! The connection is Pingora's, as those to backends are, and a new one each time. The answer is bounded in size and in
//! time, and whatever is not a list with status 200 is a failure.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::lookup_host;
use tokio::time::{sleep, timeout};

use super::{Discovery, Failure, Found};
use crate::config::ListUrl;
use crate::config::members::{Rules, members_of_json};

/// For one answer, from the look-up of the name to its last byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// A longer answer is no list of backends.
const LONGEST: usize = 8 << 20;

/// Addresses of the name that are tried.
const ADDRESSES: usize = 3;

/// A URL with a list of backends.
pub struct PolledList {
    url: ListUrl,
    interval: Duration,
    https_by_address: bool,
    connector: Option<Connector>,
}

impl PolledList {
    /// The list at this URL.
    pub fn new(url: ListUrl, interval: Duration, rules: Rules<'_>) -> Self {
        Self { url, interval, https_by_address: rules.https_by_address, connector: None }
    }

    async fn fetch(&mut self) -> Result<Vec<u8>, String> {
        let addresses = lookup_host((&*self.url.host, self.url.port)).await.map_err(|error| error.to_string())?;
        let mut outcome = Err("its name has no address".to_owned());
        let connector = self.connector.get_or_insert_with(|| connector(&self.url));
        for address in addresses.take(ADDRESSES) {
            let peer = HttpPeer::new(address, self.url.tls, self.url.host.to_string());
            outcome = exchange(connector, peer, &self.url).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

#[async_trait]
impl Discovery for PolledList {
    async fn next(&mut self) -> Result<Found, Failure> {
        if self.connector.is_some() {
            // A tenth more or less, so that many who ask drift apart.
            sleep(self.interval.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
        let fetched = timeout(PATIENCE, self.fetch()).await;
        let text = fetched.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
        // Without a first look there would be no pause after a name that cannot be resolved.
        self.connector.get_or_insert_with(|| connector(&self.url));
        let rules = Rules { https_by_address: self.https_by_address, folder: None };
        let members = text.and_then(|text| members_of_json(&text, rules));
        members.map(Found::from).map_err(|why| Failure(format!("{}: {why}", self.url)))
    }
}

/// Without TLS there is no need for the authorities of the system.
fn connector(url: &ListUrl) -> Connector {
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some("/dev/null".to_owned());
    Connector::new((!url.tls).then_some(options))
}

async fn exchange(connector: &Connector, mut peer: HttpPeer, url: &ListUrl) -> Result<Vec<u8>, String> {
    peer.options.connection_timeout = Some(PATIENCE / 4);
    peer.options.total_connection_timeout = Some(PATIENCE / 4);
    let said = |error: Box<pingora::Error>| error.etype().as_str().to_owned();
    let (mut session, _) = connector.get_http_session(&peer).await.map_err(said)?;
    session.write_request_header(Box::new(request(url).map_err(said)?)).await.map_err(said)?;
    session.finish_request_body().await.map_err(said)?;
    session.read_response_header().await.map_err(said)?;
    let status = session.response_header().map(|head| head.status);
    if status != Some(StatusCode::OK) {
        return Err(status.map_or_else(|| "no status".to_owned(), |status| format!("status {}", status.as_u16())));
    }
    let mut body = Vec::new();
    while let Some(part) = session.read_response_body().await.map_err(said)? {
        if body.len() + part.len() > LONGEST {
            return Err(format!("the answer has more than {LONGEST} bytes; a list of backends is shorter"));
        }
        body.extend_from_slice(&part);
    }
    session.shutdown().await;
    Ok(body)
}

fn request(url: &ListUrl) -> pingora::Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", url.path.as_bytes(), None)?;
    request.insert_header(HOST, url.authority())?;
    request.insert_header(USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION"), " discovery"))?;
    request.insert_header(ACCEPT, "application/json")?;
    request.insert_header(CONNECTION, "close")?;
    Ok(request)
}
