//! What an attacker sends, and what the backend made of it. A [`Vector`] is one connection's bytes and what is allowed
//! to come of them; [`run`] sends it, and then asks for two pages that nobody has poisoned.

use super::backend::Received;
use super::bytes_on_the_wire::Framing;
use super::h2_frames::{DATA, END_HEADERS, END_STREAM, Ending, HEADERS, RawH2, block, frame};
use super::{Backend, Lb};

/// A whole request that nobody has sent, if all is well.
pub const POISON: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// What may come of a vector.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is answered with this status, and the backend gets nothing at all.
    Refused(u16),
    /// It is answered with this status; the backend may get the head, and never a whole body.
    Broken(u16),
    /// The backend gets just these requests, each by its first line and its content.
    Passed(Vec<(String, String)>),
    /// The backend gets the first of these, and of the others as many as we have taken for requests of their own.
    Apart(Vec<(String, String)>),
}

/// One attack.
#[derive(Clone, Debug)]
pub struct Vector {
    pub name: String,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
}

/// The outcome of one request that passes.
pub fn once(line: &str, content: &str) -> Outcome {
    Outcome::Passed(vec![(line.to_owned(), content.to_owned())])
}

pub fn vector(name: impl Into<String>, bytes: impl AsRef<[u8]>, outcome: Outcome) -> Vector {
    Vector { name: name.into(), bytes: bytes.as_ref().to_vec(), outcome }
}

/// A POST with these lines behind its Host field, and these bytes behind its head.
pub fn post(lines: &str, body: &str) -> String {
    format!("POST /outer HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}")
}

/// A GET with these lines behind its Host field.
pub fn get(lines: &str) -> String {
    format!("GET /outer HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// Sends each on a connection of its own, with another request behind it, and looks at what the backend has.
pub async fn run(lb: &Lb, backend: &Backend, vectors: &[Vector]) {
    let mut wrong = Vec::new();
    for vector in vectors {
        let before = backend.requests();
        let statuses = converse(lb, vector).await;
        lb.until_idle().await;
        assert_eq!(lb.get("/canary").await.status, 200, "{}: the next client is served", vector.name);
        let received = backend.received().split_off(before);
        if let Err(why) = judge(&vector.outcome, &statuses, &received) {
            let texts = received.iter().map(Received::text).collect::<Vec<_>>();
            wrong.push(format!("{}: {why}; answered {statuses:?}; the backend got {texts:#?}", vector.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} vectors:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

/// The statuses of all answers on the connection, the last of which is to `GET /next` if that is still answered.
async fn converse(lb: &Lb, vector: &Vector) -> Vec<u16> {
    let mut client = lb.raw().await;
    // A peer that has refused already may be gone.
    let _ = client.try_send(&vector.bytes).await;
    let answers = match &vector.outcome {
        Outcome::Passed(requests) => requests.len(),
        Outcome::Refused(_) | Outcome::Broken(_) | Outcome::Apart(_) => 1,
    };
    let mut statuses = Vec::new();
    for number in 0..=answers {
        if number == answers {
            let _ = client.try_send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
        }
        match client.try_read_response(Framing::UntilClose).await {
            Ok(answer) => statuses.push(answer.status),
            Err(_) => break,
        }
    }
    statuses
}

fn judge(outcome: &Outcome, statuses: &[u16], received: &[Received]) -> Result<(), String> {
    received.iter().try_for_each(sound)?;
    let mut seen = received.iter().map(|it| {
        let content = String::from_utf8_lossy(&it.body.content).into_owned();
        (it.head.first_line.clone(), content)
    });
    let mut seen = seen.by_ref().collect::<Vec<_>>();
    let line = |path: &str| (format!("GET {path} HTTP/1.1"), String::new());
    if seen.pop() != Some(line("/canary")) {
        return Err("the next client's request is not the last".into());
    }
    // The request behind the vector is answered and whole, or it is neither.
    seen.pop_if(|last| *last == line("/next"));
    let first = statuses.first().copied().unwrap_or_default();
    let fine = match outcome {
        Outcome::Refused(status) => first == *status && seen.is_empty(),
        Outcome::Broken(status) => {
            first == *status && seen.len() <= 1 && seen.iter().all(|it| it.1.is_empty() && it.0.contains("/outer"))
        }
        Outcome::Passed(wanted) => first == 200 && seen == *wanted,
        Outcome::Apart(wanted) => first == 200 && !seen.is_empty() && wanted.starts_with(&seen),
    };
    if fine { Ok(()) } else { Err(format!("{outcome:?} was expected")) }
}

/// Whether a request can be read in one way only, and has been through the whole corridor.
pub fn sound(received: &Received) -> Result<(), String> {
    let fields = &received.head.fields;
    let values = |name: &str| -> Vec<&str> {
        let named = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let is_digits = |length: &&str| !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let is_token = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let head = received.head.raw.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    let text = String::from_utf8_lossy(head).replace("\r\n", "");
    let checks = [
        (lengths.len() + codings.len() <= 1, "more than one framing"),
        (lengths.iter().all(is_digits), "a length that is no number"),
        (codings.iter().all(|coding| *coding == "chunked"), "a coding beside chunked"),
        (values("host").len() == 1, "not one host"),
        (values("via").iter().any(|via| via.ends_with("portcullis")), "it bypassed the corridor"),
        (values("x-request-id").len() == 1, "not one request id"),
        (values("x-forwarded-for") == ["127.0.0.1"], "a client that is not the client"),
        (values("http2-settings").is_empty(), "an upgrade to HTTP/2"),
        (received.body.trailers.is_empty(), "trailers"),
        (fields.iter().all(|(name, _)| is_token(name)), "a name that is none"),
        (!text.contains(['\r', '\n', '\0']), "a bare CR, LF or NUL"),
        (received.head.first_line.split(' ').count() == 3, "a first line that is none"),
    ];
    checks.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err((*what).to_owned()))
}

/// One attack over HTTP/2: the fields of a head, and the DATA behind it if there is any.
pub struct Downgrade {
    pub name: &'static str,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub data: Option<&'static str>,
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    pub outcome: Outcome,
}

/// Sends each on a connection of its own to a listener that speaks HTTP/2 without TLS.
pub async fn run_downgrades(lb: &Lb, listener: usize, backend: &Backend, vectors: &[Downgrade]) {
    let mut wrong = Vec::new();
    for vector in vectors {
        let before = backend.requests();
        let mut raw = RawH2::open(lb.address(listener)).await;
        raw.send(&frames(vector)).await;
        let ending = raw.ending(1).await;
        lb.until_idle().await;
        assert_eq!(lb.get("/canary").await.status, 200, "{}: the next client is served", vector.name);
        let received = backend.received().split_off(before);
        let status = match (&vector.outcome, ending) {
            (Outcome::Passed(_) | Outcome::Apart(_), Ending::Status(status)) => status,
            (Outcome::Passed(_) | Outcome::Apart(_), Ending::Reset | Ending::Goodbye) => 0,
            (Outcome::Refused(_) | Outcome::Broken(_), Ending::Status(200)) => 200,
            // A stream or a connection that is ended is refused as well as one that is answered.
            (Outcome::Refused(status) | Outcome::Broken(status), _) => *status,
        };
        if let Err(why) = judge(&vector.outcome, &[status], &received) {
            let texts = received.iter().map(Received::text).collect::<Vec<_>>();
            wrong.push(format!("{}: {why}; ended with {ending:?}; the backend got {texts:#?}", vector.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} vectors:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

fn frames(vector: &Downgrade) -> Vec<u8> {
    let coded = |fields: &[(Vec<u8>, Vec<u8>)]| {
        block(&fields.iter().map(|(name, value)| (&name[..], &value[..])).collect::<Vec<_>>())
    };
    let ends = |last: bool| if last { END_STREAM } else { 0 };
    let has_trailers = !vector.trailers.is_empty();
    let is_bare = vector.data.is_none() && !has_trailers;
    let head = coded(&vector.fields);
    // A frame holds 16 KiB; what is more goes into CONTINUATIONs.
    let parts: Vec<&[u8]> = head.chunks(16_000).collect();
    let mut bytes = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let last = if number + 1 == parts.len() { END_HEADERS } else { 0 };
        let (kind, flags) = if number == 0 { (HEADERS, last | ends(is_bare)) } else { (9, last) };
        bytes.extend(frame(kind, flags, 1, part));
    }
    if let Some(data) = vector.data {
        bytes.extend(frame(DATA, ends(!has_trailers), 1, data.as_bytes()));
    }
    if has_trailers {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &coded(&vector.trailers)));
    }
    bytes
}
