//! Is this answer to be made smaller, or to be decoded? And what becomes of its head?
//!
//! [`judge`] reads two heads and the route's `compress` and decides, [`judge_request`] does so for a request's body;
//! [`edit`] writes what follows from it. Neither knows a body. What is in doubt is left as it is: an answer that could
//! be smaller does no harm.

pub mod edit;
mod types;

use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_NONE_MATCH, TRAILER};
use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::compress::negotiate::{Accepted, known};
use crate::config::Coding;
use crate::config::Compress;

/// What is to be done with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is none of our business, and its head stays as it is.
    Untouched(Why),
    /// It is worth it: coded if [`Accepted::best`] names a coding, see [`edit::code`], else [`edit::vary`].
    Eligible,
    /// It is in a coding that the client does not read, and is decoded: see [`edit::decode`]. It is not coded again.
    Decode(Coding),
    /// It is in a coding that the client reads; another client would get it decoded, so [`edit::vary`] says so.
    Readable(Coding),
    /// A 304 for something that we may have changed: see [`edit::not_modified`]. `weak` if what the client has got of
    /// us had a weak tag, or may get one.
    NotModified {
        /// Whether its strong tag is weakened.
        weak: bool,
    },
}

/// Why an answer is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A status whose answers have no body, a part of one, or a tunnel.
    Status,
    /// A part of something (`Content-Range`), with any status.
    Part,
    /// An HTTP/1.0 client, which knows no end of a body but that of the connection.
    OldClient,
    /// `no-transform`, of the client or of the backend (RFC 9111, sections 5.2.1.6 and 5.2.2.6).
    NoTransform,
    /// gRPC has codings of its own, message by message.
    Grpc,
    /// `Trailer` announces fields behind the body, often a digest of it.
    Trailer,
    /// It has no body.
    Empty,
    /// It is in a coding already, and nothing is decoded here.
    Encoded,
    /// It is in several codings, or in one that we do not speak.
    Unknown,
    /// It does not say of what type it is.
    NoType,
    /// Its type is not in `types`.
    Type,
    /// It is smaller than `min_size`.
    Small,
}

/// What is to be done with this answer to this request. HEAD is judged as GET is, since both get the same head.
pub fn judge(request: &RequestHeader, accepted: &Accepted, response: &ResponseHeader, compress: &Compress) -> Verdict {
    let media = types::of(&response.headers);
    if let Some(why) = barred(request, response, media) {
        return Verdict::Untouched(why);
    }
    if response.status == StatusCode::NOT_MODIFIED {
        let coded = accepted.best(&compress.algorithms).is_some();
        let weak = has_weak_form(&request.headers, &response.headers).unwrap_or(coded);
        return Verdict::NotModified { weak };
    }
    let length = length(&response.headers);
    if length == Some(0) {
        return Verdict::Untouched(Why::Empty);
    }
    match coding_of(&response.headers) {
        Content::Plain => {}
        Content::In(_) if !compress.decode => return Verdict::Untouched(Why::Encoded),
        Content::In(coding) if accepted.reads(coding) => return Verdict::Readable(coding),
        Content::In(coding) => return Verdict::Decode(coding),
        Content::Unknown => return Verdict::Untouched(Why::Unknown),
    }
    let Some(media) = media else { return Verdict::Untouched(Why::NoType) };
    if !compress.types.iter().any(|range| types::holds(range, media)) {
        return Verdict::Untouched(Why::Type);
    }
    if length.is_some_and(|length| length < compress.min_size) {
        return Verdict::Untouched(Why::Small);
    }
    Verdict::Eligible
}

/// The coding that this request's body is to be decoded from, see [`edit::decode_request`]; `None` is not at all.
pub fn judge_request(request: &RequestHeader, compress: &Compress) -> Option<Coding> {
    let fields = &request.headers;
    // Most have none, and nothing more is asked of them.
    let Content::In(coding) = coding_of(fields) else { return None };
    let barred = request.version <= Version::HTTP_10
        || no_transform(fields)
        || fields.contains_key(CONTENT_RANGE)
        || fields.contains_key(TRAILER)
        || types::of(fields).is_some_and(types::is_grpc)
        || length(fields) == Some(0);
    (compress.decode_requests && !barred).then_some(coding)
}

/// What must be left as it is, whatever the route says.
fn barred(request: &RequestHeader, response: &ResponseHeader, media: Option<&[u8]>) -> Option<Why> {
    let fields = &response.headers;
    let bars = [
        (has_no_whole_body(&request.method, response.status), Why::Status),
        (fields.contains_key(CONTENT_RANGE), Why::Part),
        (request.version <= Version::HTTP_10, Why::OldClient),
        (no_transform(&request.headers) || no_transform(fields), Why::NoTransform),
        (media.is_some_and(types::is_grpc), Why::Grpc),
        (fields.contains_key(TRAILER), Why::Trailer),
    ];
    bars.into_iter().find_map(|(holds, why)| holds.then_some(why))
}

/// A 304 has no body either, but speaks for one.
fn has_no_whole_body(method: &Method, status: StatusCode) -> bool {
    const NONE: [StatusCode; 3] = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::PARTIAL_CONTENT];
    status.is_informational() || NONE.contains(&status) || (*method == Method::CONNECT && status.is_success())
}

/// In a quoted string it would be another's word; then the answer only stays as it is.
fn no_transform(fields: &HeaderMap) -> bool {
    members(fields, &CACHE_CONTROL).any(|member| member.eq_ignore_ascii_case(b"no-transform"))
}

/// The members of a field that is a list, on however many lines, without the empty ones.
fn members<'a>(fields: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = fields.get_all(name).into_iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

/// The codings that content is in.
enum Content {
    /// None, or `identity`, which is not to be sent and is.
    Plain,
    /// One that we speak.
    In(Coding),
    /// Several, or another.
    Unknown,
}

fn coding_of(fields: &HeaderMap) -> Content {
    let mut codings = members(fields, &CONTENT_ENCODING).filter(|member| !member.eq_ignore_ascii_case(b"identity"));
    match (codings.next(), codings.next()) {
        (None, _) => Content::Plain,
        (Some(one), None) => known(one).map_or(Content::Unknown, Content::In),
        (Some(_), Some(_)) => Content::Unknown,
    }
}

/// The length that is announced; one that is no number is as good as none.
fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Whether the client has the answer that a 304 speaks for with its strong tag in the weak form that we have given it, or as
/// the backend wrote it: what we never change, as images, shall keep a tag that ranges can be asked for with. `None` where
/// the request does not say.
fn has_weak_form(request: &HeaderMap, response: &HeaderMap) -> Option<bool> {
    let tag = response.get(ETAG).map(|tag| tag.as_bytes()).filter(|tag| tag.starts_with(b"\""))?;
    // A tag may hold a comma; cut in two it is equal to none, as if the request had not said.
    let names = |form: &[u8]| members(request, &IF_NONE_MATCH).any(|named| named == form);
    match (names(&[b"W/", tag].concat()), names(tag)) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (true, true) | (false, false) => None,
    }
}

#[cfg(test)]
mod tests;
