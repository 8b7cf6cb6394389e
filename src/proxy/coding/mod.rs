//! Shall the answer be smaller? What is done to its body, and to whose.
//!
//! The room `compress` knows what may be done and how; here it is decided for one answer, and put into the session.

mod hit;
mod request;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModuleCtx;
use pingora::protocols::http::HttpTask;
use pingora::proxy::Session;
use pingora::{ErrorType, OrErr, Result};
use tokio::task::spawn_blocking;

use super::exchange::{Exchange, Phase};
use crate::cache::rules::Vary;
use crate::cache::store::{Coded, Object};
use crate::compress::negotiate::Accepted;
use crate::compress::rules::{self, Verdict, edit};
use crate::compress::{self, Encoding, Level, Order, Outcome, Recoder, Work, level_at};
use crate::config::{Coding, Compress};
use crate::filter::announced_length;
use crate::observe::access_log;

impl Exchange {
    fn compress(&self) -> Option<&Compress> {
        self.plan.as_ref()?.compress.as_deref()
    }

    /// Decides what is done to the body of a final answer, changes its head accordingly, and sees to the body.
    pub(super) fn recode(&mut self, session: &mut Session, head: &mut ResponseHeader) -> Result<()> {
        let stored = self.compress().and_then(|_| self.served(session)).cloned();
        // What is held back reaches a client as an answer of ours, if ever.
        let is_held = self.attempt.as_ref().is_some_and(|attempt| attempt.phase == Phase::Dropped);
        if is_held && stored.is_none() {
            self.recode_no_more(session);
            return Ok(());
        }
        self.recode_as(session, head, stored)
    }

    /// The same for what we say ourselves, which is never what is stored, whatever was found there.
    pub(super) fn recode_own(&mut self, session: &mut Session, head: &mut ResponseHeader) -> Result<()> {
        self.recode_as(session, head, None)
    }

    fn recode_as(
        &mut self,
        session: &mut Session,
        head: &mut ResponseHeader,
        stored: Option<Arc<Object>>,
    ) -> Result<()> {
        self.recode_no_more(session);
        let Some(order) = self.order(session.req_header(), head, stored.as_ref())? else { return Ok(()) };
        match order.work() {
            Work::Encode(coding) => edit::code(head, coding)?,
            Work::Decode(_) => edit::decode(head)?,
        }
        let is_head = session.req_header().method == Method::HEAD;
        if let Order::Replace { pieces, .. } = &order {
            head.insert_header(CONTENT_LENGTH, pieces.iter().map(Bytes::len).sum::<usize>())?;
        } else if !is_head {
            // RFC 9112, section 6.3: its length is not known any more.
            if head.version < Version::HTTP_11 {
                head.set_version(Version::HTTP_11);
            }
            head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        if !is_head {
            session.downstream_modules_ctx = compress::modules(order);
            self.is_recoded = true;
        }
        Ok(())
    }

    /// Takes back what an answer before this one has put into the session.
    pub(super) fn recode_no_more(&mut self, session: &mut Session) {
        if std::mem::take(&mut self.is_recoded) {
            session.downstream_modules_ctx = HttpModuleCtx::empty();
        }
    }

    /// What is to be done, if anything; where that depends on the client, the head says so from here on.
    fn order(
        &self,
        request: &RequestHeader,
        head: &mut ResponseHeader,
        stored: Option<&Arc<Object>>,
    ) -> Result<Option<Order>> {
        let Some(compress) = self.compress().filter(|_| !self.in_background) else { return Ok(None) };
        let accepted = Accepted::of(&request.headers);
        match rules::judge(request, &accepted, head, compress) {
            Verdict::Untouched(_) => Ok(None),
            Verdict::NotModified { weak } => edit::not_modified(head, weak).map(|()| None),
            Verdict::Readable(_) => edit::vary(head).map(|()| None),
            Verdict::Decode(coding) => Ok(Some(Order::Decode(coding))),
            Verdict::Eligible => {
                edit::vary(head)?;
                let Some(coding) = accepted.best(&compress.algorithms) else { return Ok(None) };
                let level = self.level(compress, coding);
                let passing =
                    Encoding { coding, level: level.now, length: announced_length(&head.headers), pauses: true };
                let is_head = request.method == Method::HEAD;
                Ok(stored
                    .map_or(Some(Order::Encode(passing)), |object| self.encode_stored(object, level, passing, is_head)))
            }
        }
    }

    /// How what is stored is encoded, if it is worth it.
    fn encode_stored(&self, object: &Arc<Object>, level: Level, passing: Encoding, is_head: bool) -> Option<Order> {
        let (coding, began) = (passing.coding, Instant::now());
        let form = if is_head { object.coded(coding) } else { self.stored_form(object, coding, level) };
        match form {
            Coded::Ready(body) => {
                Some(Order::Replace { coding, pieces: body.pieces().to_vec(), took: began.elapsed() })
            }
            Coded::NotWorthIt => None,
            // What is stored whole has no pauses.
            Coded::Unknown => {
                let pauses = object.length().is_none();
                Some(Order::Encode(Encoding { level: level.in_passing(coding), pauses, ..passing }))
            }
        }
    }

    /// How hard a coding tries.
    fn level(&self, compress: &Compress, coding: Coding) -> Level {
        let asked = compress.levels.of(coding);
        let now = compress.max_cpu.map_or(asked, |max| level_at(asked, self.workshop.load.percent(), max));
        Level { asked, now }
    }

    /// A piece of the answer's body is on its way.
    pub(super) fn announce_piece(&self, session: &mut Session) {
        if self.is_recoded
            && let Some(recoder) = session.downstream_modules_ctx.get_mut::<Recoder>()
        {
            recoder.announce();
        }
    }

    /// Has another thread do what takes long on pieces that are about to leave, so that other connections of this worker
    /// need not wait for it.
    pub(super) async fn recode_aside(&self, session: &mut Session, tasks: &mut Vec<HttpTask>) -> Result<()> {
        let length = tasks.iter().map(|task| if let HttpTask::Body(Some(piece), _) = task { piece.len() } else { 0 });
        let length: usize = length.sum();
        let recoder = session.downstream_modules_ctx.get_mut::<Recoder>().filter(|_| self.is_recoded);
        let Some(recoder) = recoder.filter(|it| it.takes_long(length)) else { return Ok(()) };
        let (mut out, pieces) = (std::mem::take(recoder), std::mem::take(tasks));
        let work = move || {
            let body = |task| if let &HttpTask::Body(ref piece, end) = task { Some((piece, end)) } else { None };
            out.work_ahead(pieces.iter().filter_map(body));
            (out, pieces)
        };
        let (back, pieces) = spawn_blocking(work).await.or_err(ErrorType::InternalError, "an encoder has panicked")?;
        *tasks = pieces;
        if let Some(recoder) = session.downstream_modules_ctx.get_mut::<Recoder>() {
            *recoder = back;
        }
        Ok(())
    }

    /// What was done to the body of the answer, as far as there was one.
    fn recoded(&self, session: &Session) -> Option<Outcome> {
        session.downstream_modules_ctx.get::<Recoder>().filter(|_| self.is_recoded)?.outcome()
    }

    /// What the access log says of it.
    pub(super) fn encoding(&self, session: &Session) -> Option<access_log::Recoded> {
        let Outcome { work, before, after, took } = self.recoded(session)?;
        Some(match work {
            Work::Encode(coding) => access_log::Recoded::new(coding.name(), false, (before, after), took),
            Work::Decode(coding) => access_log::Recoded::new(coding.name(), true, (before, after), took),
        })
    }

    /// Counts it.
    pub(super) fn count_recoding(&self, session: &Session) {
        if let Some(outcome) = self.recoded(session) {
            self.workshop.counts.count(&outcome);
        }
    }

    /// What is stored is stored as it is, once for all codings.
    pub(super) fn ask_for_identity(&self, head: &mut RequestHeader) -> Result<()> {
        if self.encodes_what_is_stored() {
            head.insert_header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))?;
        }
        Ok(())
    }

    fn encodes_what_is_stored(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.compress.is_some() && plan.cache.is_some())
    }

    /// The request fields that tell the stored answers to a request apart, as one of them says; `None` where all do.
    pub(super) fn varies_with(&self, fields: &HeaderMap) -> Vary {
        match Vary::of(fields) {
            // It was asked for the same as all others: which coding comes out of it is our affair.
            Vary::Fields(mut names) if self.encodes_what_is_stored() => {
                names.retain(|name| name != ACCEPT_ENCODING);
                if names.is_empty() { Vary::Nothing } else { Vary::Fields(names) }
            }
            vary @ (Vary::Nothing | Vary::Fields(_) | Vary::Star) => vary,
        }
    }
}
