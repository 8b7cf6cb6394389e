//! Shall the answer be smaller? What is done to its body, and to whose.
//!
//! The room `compress` knows what may be done and how; here it is decided for one answer, and put into the session.

mod hit;
mod request;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Version};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModuleCtx;
use pingora::proxy::Session;

use super::exchange::Exchange;
use crate::cache::rules::Vary;
use crate::cache::store::Coded;
use crate::compress::negotiate::Accepted;
use crate::compress::rules::{self, Verdict, edit};
use crate::compress::{self, Order, Outcome, Recoder, Work, level_at};
use crate::config::{Coding, Compress};
use crate::filter::announced_length;
use crate::observe::access_log::Encoding;

impl Exchange {
    fn compress(&self) -> Option<&Compress> {
        self.plan.as_ref()?.compress.as_deref()
    }

    /// Decides what is done to the body of a final answer, changes its head accordingly, and sees to the body.
    pub(super) fn recode(&mut self, session: &mut Session, head: &mut ResponseHeader) -> Result<()> {
        self.recode_no_more(session);
        let Some(work) = self.work(session, head)? else { return Ok(()) };
        let order = self.order(session, work, announced_length(&head.headers));
        match work {
            Work::Encode(coding) => edit::code(head, coding)?,
            Work::Decode(_) => edit::decode(head)?,
        }
        let is_head = session.req_header().method == Method::HEAD;
        if let Order::Replace(_, pieces) = &order {
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

    fn order(&self, session: &Session, work: Work, length: Option<u64>) -> Order {
        let coding = match work {
            Work::Encode(coding) => coding,
            Work::Decode(coding) => return Order::Decode(coding),
        };
        let stored = self.served(session);
        if let Some(Coded::Ready(body)) = stored.map(|object| object.coded(coding)) {
            return Order::Replace(coding, body.pieces().to_vec());
        }
        let (level, is_lower) = self.level(coding);
        // What is stored whole has no pauses, and whoever is the first to ask for it in a coding makes that for all; but not
        // in a hurry, since it stays.
        let pauses = stored.is_none_or(|object| object.length().is_none());
        let copy = stored.filter(|_| !is_lower).and_then(|object| self.keep_coding(object, coding));
        Order::Encode(compress::Encoding { coding, level, length, pauses, copy })
    }

    /// Takes back what an answer before this one has put into the session.
    pub(super) fn recode_no_more(&mut self, session: &mut Session) {
        if std::mem::take(&mut self.is_recoded) {
            session.downstream_modules_ctx = HttpModuleCtx::empty();
        }
    }

    /// What is to be done, if anything; a head that says whom it is for has been told so.
    fn work(&self, session: &Session, head: &mut ResponseHeader) -> Result<Option<Work>> {
        let Some(compress) = self.compress().filter(|_| !self.in_background) else { return Ok(None) };
        let request = session.req_header();
        let accepted = Accepted::of(&request.headers);
        match rules::judge(request, &accepted, head, compress) {
            Verdict::Untouched(_) => Ok(None),
            Verdict::NotModified { weak } => edit::not_modified(head, weak).map(|()| None),
            Verdict::Readable(_) => edit::vary(head).map(|()| None),
            Verdict::Decode(coding) => Ok(Some(Work::Decode(coding))),
            Verdict::Eligible => match accepted.best(&compress.algorithms) {
                Some(coding) if self.is_worth(session, coding) => Ok(Some(Work::Encode(coding))),
                Some(_) | None => edit::vary(head).map(|()| None),
            },
        }
    }

    /// How hard a coding tries now, and whether that is less than it should.
    fn level(&self, coding: Coding) -> (u8, bool) {
        let Some(compress) = self.compress() else { return (0, false) };
        let asked = compress.levels.of(coding);
        let level = compress.max_cpu.map_or(asked, |max| level_at(asked, self.codings.load.percent(), max));
        (level, level < asked)
    }

    /// A piece of the answer's body is on its way.
    pub(super) fn announce_piece(&self, session: &mut Session) {
        if self.is_recoded
            && let Some(recoder) = session.downstream_modules_ctx.get_mut::<Recoder>()
        {
            recoder.announce();
        }
    }

    /// What was done to the body of the answer, as far as there was one.
    fn recoded(&self, session: &Session) -> Option<Outcome> {
        session.downstream_modules_ctx.get::<Recoder>().filter(|_| self.is_recoded)?.outcome()
    }

    /// What the access log says of it.
    pub(super) fn encoding(&self, session: &Session) -> Option<Encoding> {
        let Outcome { work, before, after, took } = self.recoded(session)?;
        Some(match work {
            Work::Encode(coding) => Encoding::new(coding.name(), false, (before, after), took),
            Work::Decode(coding) => Encoding::new(coding.name(), true, (before, after), took),
        })
    }

    /// Counts it.
    pub(super) fn count_recoding(&self, session: &Session) {
        if let Some(outcome) = self.recoded(session) {
            self.codings.counts.count(&outcome);
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
            vary => vary,
        }
    }
}
