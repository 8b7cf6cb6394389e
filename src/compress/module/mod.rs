//! What happens to a body on its way to the client? It is encoded or decoded, piece by piece, as it comes.
//!
//! A [`Recoder`] is the Pingora module of one answer. It sits in the session only where something is to be done, so
//! that other answers pay nothing for it, and it does nothing to the head, which the rules have edited, but for a body
//! that turns out not to be there.
//!
//! What was encoded is let out whenever the backend pauses: not after each piece, which would cost a good part of what
//! is won, but after the last of those that have come together. Pingora shows each of these to the proxy's own filter
//! before it shows the first to a module, so that their number can be told with [`Recoder::announce`]. Where pieces come
//! one by one anyway, as those of a hedged answer do, each counts as the last.

use std::any::Any;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::http::ResponseHeader;
use pingora::modules::http::{HttpModule, HttpModuleBuilder, HttpModuleCtx, HttpModules, Module};
use pingora::{Error, ErrorType, Result};
use tokio::task::coop::{consume_budget, has_budget_remaining};

use super::counts::{Outcome, Work};
use super::encode::encode_all;
use super::load::likely_time;
use super::{CodecError, Decoder, Encoder};
use crate::config::Coding;

/// What takes as long has been a whole turn: much else could have been done meanwhile.
const TURN: Duration = Duration::from_micros(200);

/// The same for a short body, to which there are few turns: another thread costs some 20 us.
const TURN_OF_SHORT_BODY: Duration = Duration::from_millis(2);

/// Up to how many bytes a body is short.
const SHORT: u64 = 64 * 1024;

static MODULES: LazyLock<HttpModules> = LazyLock::new(|| {
    let mut modules = HttpModules::new();
    modules.add_module(Box::new(Builder));
    modules
});

struct Builder;

impl HttpModuleBuilder for Builder {
    fn init(&self) -> Module {
        Box::new(Recoder::default())
    }
}

/// What is to be done to a body.
pub enum Order {
    /// It is encoded as it comes.
    Encode(Encoding),
    /// It is decoded as it comes.
    Decode(Coding),
    /// It has been encoded: the pieces leave in the place of what comes, one for one, and what is left of them with the last
    /// one.
    Replace {
        /// In this coding.
        coding: Coding,
        /// All of it, in order.
        pieces: Vec<Bytes>,
        /// How long that took, if it was for this answer.
        took: Duration,
    },
}

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// In which coding.
    pub coding: Coding,
    /// How hard to try.
    pub level: u8,
    /// The length that was announced, in bytes.
    pub length: Option<u64>,
    /// Whether what was encoded is let out when nothing more comes at once.
    pub pauses: bool,
}

impl Order {
    /// What is done to the body.
    pub fn work(&self) -> Work {
        match self {
            Self::Encode(Encoding { coding, .. }) | Self::Replace { coding, .. } => Work::Encode(*coding),
            Self::Decode(coding) => Work::Decode(*coding),
        }
    }
}

/// Encodes or decodes the body of an answer.
#[derive(Default)]
pub struct Recoder {
    job: Option<Job>,
    /// Pieces that come together with the next one.
    announced: usize,
    /// What leaves in the place of the next pieces, where that is known already.
    ahead: VecDeque<Result<Option<Bytes>>>,
}

struct Job {
    state: State,
    outcome: Outcome,
}

enum State {
    /// Nothing has come yet.
    Waiting(Order),
    Encoding(Encoder, Encoding),
    Decoding(Decoder),
    Replacing(IntoIter<Bytes>),
    Ended,
}

/// What a session holds in the place of no modules while a body is recoded.
pub fn modules(order: Order) -> HttpModuleCtx {
    let mut modules = MODULES.build_ctx();
    if let Some(recoder) = modules.get_mut::<Recoder>() {
        let mut outcome = Outcome::of(order.work());
        if let Order::Replace { took, .. } = &order {
            outcome.took = *took;
        }
        recoder.job = Some(Job { outcome, state: State::Waiting(order) });
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

    /// Whether to encode so many bytes takes so long that others should have the thread meanwhile.
    pub fn takes_long(&self, length: usize) -> bool {
        let state = self.job.as_ref().map(|job| &job.state);
        let Some(State::Waiting(Order::Encode(it)) | State::Encoding(_, it)) = state else { return false };
        let turn = if it.length.is_some_and(|length| length <= SHORT) { TURN_OF_SHORT_BODY } else { TURN };
        likely_time(it.coding, it.level, length) >= turn
    }

    /// Does what is to be done to pieces that come next, so that they find it done. Blocks for as long as that takes.
    pub fn work_ahead<'a>(&mut self, pieces: impl IntoIterator<Item = (&'a Option<Bytes>, bool)>) {
        for (piece, end) in pieces {
            let done = self.pass(piece.as_ref(), end);
            self.ahead.push_back(done);
        }
    }

    /// What leaves in the place of a piece.
    fn pass(&mut self, piece: Option<&Bytes>, end: bool) -> Result<Option<Bytes>> {
        self.announced = self.announced.saturating_sub(1);
        self.recode(piece, end)
    }

    fn recode(&mut self, piece: Option<&Bytes>, end: bool) -> Result<Option<Bytes>> {
        let Some(job) = &mut self.job else { return Ok(piece.cloned()) };
        let what_follows = match (end, self.announced) {
            (true, _) => Follows::Nothing,
            (false, 0) => Follows::Later,
            (false, _) => Follows::AtOnce,
        };
        let (data, began) = (piece.map_or(&[][..], |piece| piece), Instant::now());
        let state = std::mem::replace(&mut job.state, State::Ended);
        let (state, out) = state.next(data, what_follows).map_err(|error| explain(&error, job.outcome.work))?;
        job.state = state;
        let took = began.elapsed();
        if took >= TURN {
            end_turn();
        }
        job.outcome.took += took;
        job.outcome.before += data.len() as u64;
        job.outcome.after += out.len() as u64;
        Ok((!out.is_empty()).then_some(out))
    }
}

/// What comes behind a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    /// Another piece that is here already.
    AtOnce,
    /// Another, some time.
    Later,
    Nothing,
}

impl State {
    /// The state behind a piece, and what leaves in its place.
    fn next(self, data: &[u8], follows: Follows) -> Result<(Self, Bytes), CodecError> {
        match self {
            Self::Waiting(Order::Encode(encoding)) => begin(encoding, data, follows),
            Self::Waiting(Order::Decode(coding)) => decode(Decoder::new(coding)?, data, follows),
            Self::Waiting(Order::Replace { pieces, .. }) => Ok(replace(pieces.into_iter(), data, follows)),
            Self::Encoding(encoder, encoding) => encode(encoder, encoding, data, follows),
            Self::Decoding(decoder) => decode(decoder, data, follows),
            Self::Replacing(pieces) => Ok(replace(pieces, data, follows)),
            Self::Ended => Ok((Self::Ended, Bytes::new())),
        }
    }
}

fn begin(encoding: Encoding, data: &[u8], follows: Follows) -> Result<(State, Bytes), CodecError> {
    let Encoding { coding, level, length, .. } = encoding;
    if follows != Follows::Nothing {
        return encode(Encoder::new(coding, level, length)?, encoding, data, follows);
    }
    let out = encode_all(coding, level, &[data])?;
    Ok((State::Ended, out))
}

fn encode(
    mut encoder: Encoder,
    encoding: Encoding,
    data: &[u8],
    follows: Follows,
) -> Result<(State, Bytes), CodecError> {
    let mut out = Vec::new();
    encoder.write(data, &mut out)?;
    let state = if follows == Follows::Nothing {
        encoder.finish(&mut out)?;
        State::Ended
    } else {
        if follows == Follows::Later && encoding.pauses {
            encoder.flush(&mut out)?;
        }
        State::Encoding(encoder, encoding)
    };
    Ok((state, out.into()))
}

/// Uses up what tokio lets a task do before others have their turn, so that this one waits for them where it reads or writes
/// next. Without it one whose backend is quick would be at it until the body ends.
fn end_turn() {
    let mut cx = Context::from_waker(Waker::noop());
    // Where there is no such bound it is never used up.
    for _ in 0..u8::MAX {
        if !has_budget_remaining() {
            return;
        }
        let _ = pin!(consume_budget()).poll(&mut cx);
    }
}

fn decode(mut decoder: Decoder, data: &[u8], follows: Follows) -> Result<(State, Bytes), CodecError> {
    let mut out = Vec::new();
    decoder.write(data, &mut out)?;
    let state = match follows {
        Follows::AtOnce | Follows::Later => State::Decoding(decoder),
        Follows::Nothing => decoder.finish().map(|()| State::Ended)?,
    };
    Ok((state, out.into()))
}

fn replace(mut pieces: IntoIter<Bytes>, data: &[u8], follows: Follows) -> (State, Bytes) {
    match follows {
        Follows::Nothing => (State::Ended, whole(pieces)),
        Follows::AtOnce | Follows::Later => {
            let piece = if data.is_empty() { None } else { pieces.next() };
            (State::Replacing(pieces), piece.unwrap_or_default())
        }
    }
}

/// What is mostly one piece.
fn whole(mut pieces: IntoIter<Bytes>) -> Bytes {
    match (pieces.next(), pieces.as_slice()) {
        (Some(one), []) => one,
        (first, rest) => first.iter().chain(rest).flatten().copied().collect(),
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
        if end_of_stream && !head.status.is_informational() && self.job.is_some() {
            self.job = None;
            head.remove_header(&CONTENT_ENCODING);
            head.remove_header(&TRANSFER_ENCODING);
            head.insert_header(CONTENT_LENGTH, 0)?;
        }
        Ok(())
    }

    fn response_body_filter(&mut self, body: &mut Option<Bytes>, end_of_stream: bool) -> Result<()> {
        *body = match self.ahead.pop_front() {
            Some(done) => done?,
            None => self.pass(body.as_ref(), end_of_stream)?,
        };
        Ok(())
    }

    /// What is left goes out in their place: they may tell something of the body as it was.
    fn response_trailer_filter(&mut self, trailers: &mut Option<Box<HeaderMap>>) -> Result<Option<Bytes>> {
        if self.job.is_some() {
            *trailers = None;
        }
        self.response_done_filter()
    }

    fn response_done_filter(&mut self) -> Result<Option<Bytes>> {
        self.recode(None, true)
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
