//! What does a URL say? One GET for what we need ourselves: a list of backends, a set of keys.
//!
//! The connection is Pingora's, as those to backends are, and a new one each time. The answer is bounded in size and in
//! time, and whatever has another status than 200 is a failure. Redirects are not followed.

use std::time::Duration;

use http::StatusCode;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::lookup_host;
use tokio::time::timeout;

use crate::config::HttpUrl;

/// For one answer, from the look-up of the name to its last byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// Addresses of the name that are tried.
const ADDRESSES: usize = 3;

/// A URL, and how much may be there.
pub struct Fetch {
    url: HttpUrl,
    longest: usize,
    connector: Option<Connector>,
}

impl Fetch {
    /// What is at this URL, in at most so many bytes.
    pub fn new(url: HttpUrl, longest: usize) -> Self {
        Self { url, longest, connector: None }
    }

    /// Where it is.
    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// Asks for it, or says why there is nothing.
    pub async fn ask(&mut self) -> Result<Vec<u8>, String> {
        let asked = timeout(PATIENCE, self.ask_each_address()).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }

    async fn ask_each_address(&mut self) -> Result<Vec<u8>, String> {
        let addresses = lookup_host((&*self.url.host, self.url.port)).await.map_err(|error| error.to_string())?;
        let mut outcome = Err("its name has no address".to_owned());
        let connector = self.connector.get_or_insert_with(|| connector(&self.url));
        for address in addresses.take(ADDRESSES) {
            let peer = HttpPeer::new(address, self.url.tls, self.url.host.to_string());
            outcome = exchange(connector, peer, &self.url, self.longest).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

/// Without TLS there is no need for the authorities of the system.
fn connector(url: &HttpUrl) -> Connector {
    let mut options = ConnectorOptions::new(1);
    options.ca_file = Some("/dev/null".to_owned());
    Connector::new((!url.tls).then_some(options))
}

async fn exchange(connector: &Connector, mut peer: HttpPeer, url: &HttpUrl, longest: usize) -> Result<Vec<u8>, String> {
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
        if body.len() + part.len() > longest {
            return Err(format!("the answer has more than {longest} bytes"));
        }
        body.extend_from_slice(&part);
    }
    session.shutdown().await;
    Ok(body)
}

fn request(url: &HttpUrl) -> pingora::Result<RequestHeader> {
    let mut request = RequestHeader::build("GET", url.path.as_bytes(), None)?;
    request.insert_header(HOST, url.authority())?;
    request.insert_header(USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION")))?;
    request.insert_header(ACCEPT, "application/json")?;
    request.insert_header(CONNECTION, "close")?;
    Ok(request)
}
