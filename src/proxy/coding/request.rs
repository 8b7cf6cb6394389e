//! Does the backend get a request's body without its coding? Each attempt decodes it anew, as it comes.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Version};
use pingora::Result;
use pingora::http::RequestHeader;

use crate::answer::Refusal;
use crate::compress::rules::{self, edit};
use crate::compress::{CodecError, Decoder};
use crate::proxy::exchange::Exchange;

impl Exchange {
    /// Takes the coding from the head of a request, if its route wants the body without one, and prepares for the body.
    pub(in crate::proxy) fn decode_request(&mut self, head: &mut RequestHeader) -> Result<()> {
        self.body_decoder = None;
        let Some(plan) = self.plan.as_ref().filter(|plan| plan.decodes_requests()) else { return Ok(()) };
        let Some(coding) = rules::coding(&head.headers) else { return Ok(()) };
        let decoder = Decoder::new(coding, Some(plan.body_limit)).map_err(|_| self.refused(Refusal::Internal))?;
        self.body_decoder = Some(Box::new(decoder));
        head.remove_header(&CONTENT_ENCODING);
        let had_length = head.headers.contains_key(CONTENT_LENGTH);
        edit::OF_THE_OLD_BODY.iter().for_each(|name| drop(head.remove_header(name)));
        // RFC 9112, section 6.3: its length is not known any more. On HTTP/2 it need not be.
        if had_length && head.version != Version::HTTP_2 {
            head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        Ok(())
    }

    /// Decodes a piece of the request's body for the backend.
    pub(in crate::proxy) fn decode_body(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<()> {
        let Some(decoder) = &mut self.body_decoder else { return Ok(()) };
        let mut out = Vec::new();
        let written = body.as_ref().map_or(Ok(()), |piece| decoder.write(piece, &mut out));
        let ended = written.and_then(|()| if end { decoder.finish() } else { Ok(()) });
        *body = (!out.is_empty()).then(|| out.into());
        ended.map_err(|error| self.refused(refusal(error)))
    }
}

fn refusal(error: CodecError) -> Refusal {
    match error {
        CodecError::TooLarge(..) | CodecError::Bomb(_) => Refusal::BodyTooLarge,
        CodecError::Malformed(_) | CodecError::Truncated(_) => Refusal::MalformedBody,
        CodecError::Refused(_) => Refusal::Internal,
    }
}
