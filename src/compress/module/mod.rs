//! What happens to a body on its way to the client? It is encoded or decoded, piece by piece, as it comes.
//!
//! A [`Recoder`] is the Pingora module of one answer. It sits in the session only where something is to be done, so
//! that other answers pay nothing for it, and it does nothing to the head, which the rules have edited, but for a body
//! that turns out not to be there.
//!
//! What was encoded is let out whenever the backend pauses: not after each piece, which would cost a good part of what
//! is won, but after the last of those that have come together. Pingora shows each of these to the proxy's own filter
//! before it shows the first to a module, so that their number can be told with [`Recoder::announce`].

use std::any::Any;
use std::sync::LazyLock;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::http::ResponseHeader;
use pingora::modules::http::{HttpModule, HttpModuleBuilder, HttpModuleCtx, HttpModules, Module};
use pingora::{Error, ErrorType, Result};

use super::counts::{Outcome, Work};
use super::encode::encode_all;
use super::{CodecError, Decoder, Encoder};

static MODULES: LazyLock<HttpModules> = LazyLock::new(|| {
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Builder));
    modules
});

struct Builder;

impl HttpModuleBuilder for Builder {
    fn init(&self) -> Module {
        Box::new(Recoder { job: None, announced: 0 })
    }
}

/// Who is shown the pieces of a body as they leave, in order, and whether it has ended well.
pub trait Copy: Send + Sync {
    /// The next piece; `false` if no more is wanted.
    fn take(&mut self, piece: &Bytes) -> bool;
    /// There was all of it.
    fn end(self: Box<Self>);
}

/// What is to be done to a body.
pub struct Order {
    /// What to do.
    pub work: Work,
    /// How hard to try.
    pub level: u8,
    /// The length that was announced, in bytes.
    pub length: Option<u64>,
    /// Whether what was encoded is let out when nothing more comes at once.
    pub pauses: bool,
    /// Who wants a copy of what leaves.
    pub copy: Option<Box<dyn Copy>>,
}

/// Encodes or decodes the body of an answer.
pub struct Recoder {
    job: Option<Job>,
    /// Pieces that come together with the next one.
    announced: usize,
}

struct Job {
    order: Order,
    state: State,
    outcome: Outcome,
}

enum State {
    /// Nothing has come yet.
    Waiting,
    Encoding(Encoder),
    Decoding(Decoder),
    Ended,
}

/// What a session holds in the place of no modules while a body is recoded.
pub fn modules(order: Order) -> HttpModuleCtx {
    let mut modules = MODULES.build_ctx();
    if let Some(recoder) = modules.get_mut::<Recoder>() {
        let outcome = Outcome::of(order.work);
        recoder.job = Some(Job { order, state: State::Waiting, outcome });
    }
    modules
}

impl Recoder {
    /// A piece comes before there is a pause.
    pub fn announce(&mut self) {
        self.announced += 1;
    }

    /// What has been done so far.
    pub fn outcome(&self) -> Option<Outcome> {
        self.job.as_ref().map(|job| job.outcome)
    }

    fn recode(&mut self, piece: Option<&Bytes>, end: bool) -> Result<Option<Bytes>> {
        let Some(job) = &mut self.job else { return Ok(piece.cloned()) };
        let pauses = self.announced == 0 && job.order.pauses;
        let began = Instant::now();
        let out = job.recode(piece, end, pauses).map_err(|error| explain(&error, job.order.work))?;
        job.outcome.took += began.elapsed();
        job.outcome.before += piece.map_or(0, Bytes::len) as u64;
        job.outcome.after += out.len() as u64;
        let out = (!out.is_empty()).then_some(out);
        job.show(out.as_ref());
        Ok(out)
    }
}

impl Job {
    fn recode(&mut self, piece: Option<&Bytes>, end: bool, pauses: bool) -> Result<Bytes, CodecError> {
        let mut out = Vec::new();
        if let (State::Waiting, Work::Encode(coding), Some(piece), true) = (&self.state, self.order.work, piece, end) {
            self.state = State::Ended;
            return encode_all(coding, self.order.level, std::slice::from_ref(piece));
        }
        if let State::Waiting = self.state {
            self.state = match self.order.work {
                Work::Encode(coding) => State::Encoding(Encoder::new(coding, self.order.level, self.order.length)?),
                Work::Decode(coding) => State::Decoding(Decoder::new(coding)?),
            };
        }
        match &mut self.state {
            State::Encoding(encoder) => {
                piece.map_or(Ok(()), |piece| encoder.write(piece, &mut out))?;
                if pauses && !end {
                    encoder.flush(&mut out)?;
                }
            }
            State::Decoding(decoder) => piece.map_or(Ok(()), |piece| decoder.write(piece, &mut out))?,
            State::Waiting | State::Ended => {}
        }
        if end {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Encoding(encoder) => encoder.finish(&mut out)?,
                State::Decoding(decoder) => decoder.finish()?,
                State::Waiting | State::Ended => {}
            }
        }
        Ok(out.into())
    }

    fn show(&mut self, out: Option<&Bytes>) {
        let Some(mut copy) = self.order.copy.take() else { return };
        if out.is_some_and(|piece| !copy.take(piece)) {
            return;
        }
        match self.state {
            State::Ended => copy.end(),
            State::Waiting | State::Encoding(_) | State::Decoding(_) => self.order.copy = Some(copy),
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

/// What a backend has coded wrongly is its fault; that we cannot encode is ours.
fn explain(error: &CodecError, work: Work) -> Box<Error> {
    match work {
        Work::Encode(coding) => {
            Error::explain(ErrorType::InternalError, format!("cannot encode a body with {coding}: {error}")).into_in()
        }
        Work::Decode(coding) => {
            Error::explain(ErrorType::InvalidHTTPHeader, format!("cannot decode a body from {coding}: {error}"))
                .into_up()
        }
    }
}

#[async_trait]
impl HttpModule for Recoder {
    /// Where there is no body, there is nothing in a coding: even an empty one has bytes in any of them.
    async fn response_header_filter(&mut self, head: &mut ResponseHeader, end_of_stream: bool) -> Result<()> {
        if end_of_stream
            && !head.status.is_informational()
            && let Some(job) = &mut self.job
        {
            job.state = State::Ended;
            head.remove_header(&CONTENT_ENCODING);
            head.remove_header(&TRANSFER_ENCODING);
            head.insert_header(CONTENT_LENGTH, 0)?;
        }
        Ok(())
    }

    fn response_body_filter(&mut self, body: &mut Option<Bytes>, end_of_stream: bool) -> Result<()> {
        self.announced = self.announced.saturating_sub(1);
        *body = self.recode(body.as_ref(), end_of_stream)?;
        Ok(())
    }

    /// What is left goes out in their place: after a body that is recoded there are no trailers.
    fn response_trailer_filter(&mut self, _trailers: &mut Option<Box<HeaderMap>>) -> Result<Option<Bytes>> {
        self.response_done_filter()
    }

    fn response_done_filter(&mut self) -> Result<Option<Bytes>> {
        match self.job.as_ref().is_some_and(|job| !job.has_ended()) {
            true => self.recode(None, true),
            false => Ok(None),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests;
