//! Is it there, and fresh? Most requests to a cache ask for just that, and get it without the rest of the machine.
//!
//! Pingora's way to a hit builds what a miss needs too: its own key, a copy of the head for its own state, and boxes for
//! what may yet happen. A request that needs none of that is answered here, from the same store by the same rules;
//! whoever finds nothing fresh, or wants a part, goes Pingora's way from the start.

use std::sync::Arc;
use std::time::SystemTime;

use http::Method;
use http::header::{AGE, RANGE};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::conditional_filter::to_304;
use pingora::proxy::{ProxyHttp, Session};
use pingora::{Error, ErrorSource, Result};

use super::Cached;
use crate::cache::rules::{self, Asked, Use};
use crate::cache::store::{Object, Reading};
use crate::cache::{Cache, Key, Store};
use crate::proxy::Gateway;
use crate::proxy::exchange::Exchange;

impl Gateway {
    /// Answers a request with what is stored and fresh; says whether there was such a thing.
    pub(in crate::proxy) async fn serve_hit(
        &self,
        session: &mut Session,
        exchange: &mut Box<Exchange>,
    ) -> Result<bool> {
        let Some((object, mut head)) = exchange.fresh_hit(session, self.belongings.cache)? else { return Ok(false) };
        let request = session.req_header();
        let is_known = rules::not_modified(&request.headers, &request.method, head.status, &head.headers);
        let has_body = !is_known && request.method != Method::HEAD;
        if is_known {
            to_304(&mut head);
        }
        self.response_filter(session, &mut head, exchange).await?;
        if exchange.is_recoded {
            return write_recoded(session, head, &object).await.map(|()| true);
        }
        let client = session.as_downstream_mut();
        client.write_response_header(head).await.map_err(|error| error.into_down())?;
        match object.body_in_one_piece().filter(|_| has_body) {
            Some(body) => client.write_response_body(body, true).await.map_err(|error| error.into_down())?,
            None if has_body => write_pieces(session, object).await?,
            None => {}
        }
        Ok(true)
    }
}

/// Writes what the session's module makes of an object. Others come first between its pieces, since each is work.
async fn write_recoded(session: &mut Session, head: Box<ResponseHeader>, object: &Object) -> Result<()> {
    session.write_response_header(head, false).await.map_err(of_the_client)?;
    let pieces = object.pieces().unwrap_or_default();
    for (index, piece) in pieces.iter().enumerate() {
        let is_last = index + 1 == pieces.len();
        session.write_response_body(Some(piece.clone()), is_last).await.map_err(of_the_client)?;
        if !is_last {
            tokio::task::yield_now().await;
        }
    }
    if pieces.is_empty() {
        session.write_response_body(None, true).await.map_err(of_the_client)?;
    }
    Ok(())
}

/// What does not say whose fault it is comes from the connection; the module says so.
fn of_the_client(error: Box<Error>) -> Box<Error> {
    if *error.esource() == ErrorSource::Unset { error.into_down() } else { error }
}

async fn write_pieces(session: &mut Session, object: Arc<Object>) -> Result<()> {
    let mut reading = Reading::new(object);
    let client = session.as_downstream_mut();
    // A body that is complete never breaks off.
    while let Ok(Some(bytes)) = reading.next().await {
        client.write_response_body(bytes, false).await.map_err(|error| error.into_down())?;
    }
    client.write_response_body(bytes::Bytes::new(), true).await.map_err(|error| error.into_down())
}

impl Exchange {
    /// What is stored for this request, if it is whole and fresh, and a head for it with its age.
    fn fresh_hit(
        &mut self,
        session: &mut Session,
        cache: &'static Cache,
    ) -> Result<Option<(Arc<Object>, Box<ResponseHeader>)>> {
        let Some(caching) = self.caching().cloned() else { return Ok(None) };
        let request = session.req_header();
        let is_plain = matches!(request.method, Method::GET | Method::HEAD) && !request.headers.contains_key(RANGE);
        if !is_plain || session.as_downstream().is_subrequest() || self.bypasses(session, &caching, None).is_some() {
            return Ok(None);
        }
        let request = session.req_header();
        let mut cached = Box::new(Cached { asked: Asked::of(&request.headers), ..Cached::new(cache, None) });
        let Some(key) = self.key(request, None) else { return Ok(None) };
        let now = SystemTime::now();
        let found = find(cache.store(), &key, request);
        cached.key = Some(key);
        let fresh = found.filter(|object| {
            object.length().is_some() && object.is_fresh(now) && cached.verdict(object, now) == Use::AsStored
        });
        let served = match fresh {
            Some(object) => {
                cached.served_until = Some(object.facts.fresh_until);
                cached.hit = Some(object.clone());
                let mut head = Box::new(object.head.clone());
                head.insert_header(AGE, object.age(now).as_secs())?;
                Some((object, head))
            }
            None => None,
        };
        self.cached = Some(cached);
        Ok(served)
    }
}

/// What is stored under a key for this request.
fn find(store: &Store, key: &Key, request: &RequestHeader) -> Option<Arc<Object>> {
    let last = store.find(key, None)?;
    if last.facts.vary.is_empty() {
        return Some(last);
    }
    let variance = Some(rules::variance(&last.facts.vary, &request.headers, Key::seed()));
    if last.facts.variance == variance { Some(last) } else { store.find(key, variance) }
}
