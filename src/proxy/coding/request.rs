//! Does the backend get a request's body without its coding? Each attempt decodes it anew, as it comes.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Version};
use pingora::Result;
use pingora::http::RequestHeader;

use crate::answer::Refusal;
use crate::compress::rules::{self, edit};
use crate::compress::{CodecError, Decoder};
use crate::proxy::exchange::Exchange;

impl Exchange {
    /// Takes the coding from the head of a request for a backend, if its route wants the body without one, and prepares
    /// for the body.
    pub(in crate::proxy) fn decode_request(
        &mut self,
        incoming: &RequestHeader,
        head: &mut RequestHeader,
    ) -> Result<()> {
        self.body_decoder = None;
        let Some(plan) = &self.plan else { return Ok(()) };
        let coding = plan.compress.as_ref().and_then(|compress| rules::judge_request(incoming, compress));
        let Some(coding) = coding else { return Ok(()) };
        let limit = Some(plan.body_limit);
        let decoder = Decoder::new(coding).map_err(|_| self.refused(Refusal::Internal))?;
        self.body_decoder = Some(Box::new(decoder.limited(limit)));
        let had_length = head.headers.contains_key(CONTENT_LENGTH);
        edit::decode_request(head);
        // RFC 9112, section 6.3: its length is not known any more. On HTTP/2 it need not be.
        if had_length && head.version != Version::HTTP_2 {
            head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        Ok(())
    }

    /// Decodes a piece of the request's body for the backend.
    pub(in crate::proxy) fn decode_body(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(mut decoder) = self.body_decoder.take() else { return Ok(()) };
        let mut out = Vec::new();
        let written = body.as_ref().map_or(Ok(()), |piece| decoder.write(piece, &mut out));
        let decoded = match end {
            true => written.and_then(|()| decoder.finish()),
            false => written.map(|()| self.body_decoder = Some(decoder)),
        };
        // Empty, not none: before the end that says that nothing has come out yet, none would say that it is the end.
        *body = Some(out.into());
        decoded.map_err(|error| self.refused(refusal(error)))
    }
}

fn refusal(error: CodecError) -> Refusal {
    match error {
        CodecError::TooLarge(..) | CodecError::Bomb(_) => Refusal::BodyTooLarge,
        CodecError::Malformed(_) | CodecError::Truncated(_) => Refusal::MalformedBody,
        CodecError::Refused(_) => Refusal::Internal,
    }
}
