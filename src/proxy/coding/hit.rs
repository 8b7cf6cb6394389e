//! How does something stored leave in a coding? As it was coded before, or coded now and kept for the next.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::modules::http::HttpModuleCtx;
use pingora::proxy::Session;

use super::Recoding;
use crate::cache::store::{Coded, CodedBody, CodedFilling, Object};
use crate::compress::{self, Copy, Order, Outcome, Work};
use crate::config::Coding;
use crate::proxy::exchange::Exchange;

/// Keeps what is sent to a client for those who come after it.
struct Keeping(CodedFilling);

impl Copy for Keeping {
    fn take(&mut self, piece: &Bytes) -> bool {
        self.0.write(piece)
    }

    fn end(self: Box<Self>) {
        self.0.finish();
    }
}

impl Exchange {
    /// Whether what is served from the store is hardly smaller in a coding.
    pub(super) fn hit_is_not_worth(&self, coding: Coding) -> bool {
        self.hit().is_some_and(|object| matches!(object.coded(coding), Coded::NotWorthIt))
    }

    /// Serves what is stored, if its head says that it leaves in another coding; says whether it did.
    pub(in crate::proxy) async fn serve_recoded(
        &mut self,
        session: &mut Session,
        head: &mut Box<ResponseHeader>,
        object: &Arc<Object>,
    ) -> Result<bool> {
        let Some(recoding) = self.recoding else { return Ok(false) };
        let has_body = session.req_header().method != Method::HEAD;
        let coded = match recoding.work {
            Work::Encode(coding) => object.coded(coding),
            Work::Decode(_) => Coded::Unknown,
        };
        let head = std::mem::replace(head, Box::new(ResponseHeader::build(200, None)?));
        match coded {
            Coded::Ready(body) => self.serve_coded(session, head, &body, has_body).await?,
            Coded::NotWorthIt | Coded::Unknown if has_body => {
                self.keep_what_leaves(session, recoding, object);
                session.write_response_header(head, false).await?;
                write_through(session, object).await?;
            }
            Coded::NotWorthIt | Coded::Unknown => session.write_response_header(head, false).await?,
        }
        Ok(true)
    }

    /// Sends what is there, and nobody works for it.
    async fn serve_coded(
        &mut self,
        session: &mut Session,
        mut head: Box<ResponseHeader>,
        body: &CodedBody,
        has_body: bool,
    ) -> Result<()> {
        session.downstream_modules_ctx = HttpModuleCtx::empty();
        head.remove_header(&TRANSFER_ENCODING);
        head.insert_header(CONTENT_LENGTH, body.length())?;
        if let Some(recoding) = self.recoding.as_mut().filter(|_| has_body) {
            let before = recoding.length.unwrap_or(0);
            recoding.stored = Some(Outcome { before, after: body.length(), ..Outcome::of(recoding.work) });
        }
        let client = session.as_downstream_mut();
        client.write_response_header(head).await.map_err(|error| error.into_down())?;
        let pieces = if has_body { body.pieces() } else { &[] };
        for (index, piece) in pieces.iter().enumerate() {
            let is_last = index + 1 == pieces.len();
            client.write_response_body(piece.clone(), is_last).await.map_err(|error| error.into_down())?;
        }
        Ok(())
    }

    /// Whoever is the first to ask for a coding makes it for all.
    fn keep_what_leaves(&self, session: &mut Session, recoding: Recoding, object: &Arc<Object>) {
        let Recoding { work, level, length, .. } = recoding;
        let claim = match work {
            Work::Encode(coding) => self.store().and_then(|store| store.claim_coding(object, coding)),
            Work::Decode(_) => None,
        };
        let copy = claim.map(|filling| Box::new(Keeping(filling)) as Box<dyn Copy>);
        // All of it is here: there is no pause to fill.
        session.downstream_modules_ctx = compress::modules(Order { work, level, length, pauses: false, copy });
    }
}

/// Writes a stored body through what recodes it.
async fn write_through(session: &mut Session, object: &Object) -> Result<()> {
    let pieces = object.pieces().unwrap_or_default();
    for (index, piece) in pieces.iter().enumerate() {
        session.write_response_body(Some(piece.clone()), index + 1 == pieces.len()).await?;
    }
    if pieces.is_empty() { session.write_response_body(None, true).await } else { Ok(()) }
}
