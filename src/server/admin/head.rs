//! What was asked? The head of a request and its body, each with a bound.
//!
//! A few lines of HTTP/1.1: fields that could mean two things are refused, and nothing is guessed.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::operator::Reply;

/// Bytes of a request's head; a probe sends a few hundred, a browser two thousand.
pub(super) const HEAD: usize = 8 * 1024;
/// Bytes of a request's body; what is wanted of a backend is short.
const BODY: usize = 4 * 1024;

/// A request, as far as its head.
pub(super) struct Head {
    pub(super) method: String,
    /// As it was sent.
    pub(super) target: String,
    fields: Vec<(String, String)>,
    /// What has come after the head already.
    rest: Vec<u8>,
}

/// What has come instead of a head.
pub(super) enum NoHead {
    Malformed,
    TooLarge,
    Nothing,
}

/// Reads a head.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Head, NoHead>> {
    let mut bytes = Vec::with_capacity(512);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            if end + 4 > HEAD {
                return Ok(Err(NoHead::TooLarge));
            }
            let rest = bytes.split_off(end + 4);
            return Ok(Head::parse(&bytes, rest).ok_or(NoHead::Malformed));
        }
        if bytes.len() > HEAD {
            return Ok(Err(NoHead::TooLarge));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(Err(NoHead::Nothing));
        }
    }
}

impl Head {
    fn parse(bytes: &[u8], rest: Vec<u8>) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split("\r\n");
        let parts: Vec<_> = lines.next()?.split(' ').collect();
        let [method, target, "HTTP/1.0" | "HTTP/1.1"] = parts[..] else { return None };
        let mut fields = Vec::new();
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':')?;
            if name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace()) {
                return None;
            }
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let head = Self { method: method.to_owned(), target: target.to_owned(), fields, rest };
        // Of two that say different things nobody knows which one counts.
        let once = ["host", "origin", "authorization", "content-length", "transfer-encoding"];
        once.iter().all(|name| head.all(name).count() <= 1).then_some(head)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The path, without the query.
    pub(super) fn path(&self) -> &str {
        self.target.split_once('?').map_or(&*self.target, |(path, _)| path)
    }

    /// What stands behind the question mark.
    pub(super) fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// Reads the body, or says why it is not read.
    pub(super) async fn body(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<Vec<u8>, Reply>> {
        let length = match self.body_length() {
            Ok(length) => length,
            Err(reply) => return Ok(Err(reply)),
        };
        let mut body = std::mem::take(&mut self.rest);
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Ok(Err(Reply::problem("400 Bad Request", "the body broke off", "send it whole")));
            }
        }
        body.truncate(length);
        Ok(Ok(body))
    }

    fn body_length(&self) -> Result<usize, Reply> {
        if self.field("transfer-encoding").is_some() {
            return Err(Reply::problem("411 Length Required", "the body has no length", "send a Content-Length"));
        }
        let Some(value) = self.field("content-length") else { return Ok(0) };
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let length = value.parse().ok().filter(|_| digits);
        match length {
            Some(length) if length <= BODY => Ok(length),
            None if !digits => {
                let what = "the Content-Length is no number";
                Err(Reply::problem("400 Bad Request", what, "send the length of the body in bytes"))
            }
            Some(_) | None => {
                let what = format!("the body has more than {BODY} bytes");
                Err(Reply::problem("413 Content Too Large", what, "send less: nothing here needs so much"))
            }
        }
    }
}

#[cfg(test)]
pub(super) fn head(text: &str) -> Head {
    let text = format!("{text}\r\n\r\n");
    Head::parse(text.as_bytes(), Vec::new()).unwrap_or_else(|| panic!("{text:?} is a head"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_could_mean_two_things_is_none() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1",
            "GET / HTTP/1.1\r\nHost : a",
            "GET / HTTP/1.1\r\nHost",
            "GET / HTTP/2",
            "GET  / HTTP/1.1",
            "",
        ] {
            assert!(Head::parse(format!("{text}\r\n\r\n").as_bytes(), Vec::new()).is_none(), "{text:?}");
        }
        let head = head("GET /a?b HTTP/1.1\r\nHost:  x ");
        assert_eq!((head.path(), head.query(), head.field("host")), ("/a", "b", Some("x")));
    }

    #[test]
    fn a_body_has_a_length() {
        for (field, expected) in [
            ("A: b", Ok(0)),
            ("Content-Length: 12", Ok(12)),
            ("Content-Length: 5000", Err("413")),
            ("Content-Length: +5", Err("400")),
            ("Content-Length: ", Err("400")),
            ("Content-Length: 99999999999999999999", Err("413")),
            ("Transfer-Encoding: chunked", Err("411")),
        ] {
            let length = head(&format!("PUT / HTTP/1.1\r\n{field}")).body_length();
            assert_eq!(length.map_err(|reply| &reply.status[..3]), expected, "{field}");
        }
    }
}
