//! Where does the head of a request end, how is its body framed, and is every byte of it allowed?
//!
//! Pingora parses a head for its meaning. This looks only at what it forgives or answers without our hooks (RFC 9112,
//! sections 2 to 6). Bytes go in as they come, cut anywhere; each is looked at once.

use memchr::memchr;

use crate::answer::Refusal;

/// The longest request line, target included: what the strictest of the usual servers take.
const LONGEST_LINE: usize = 8 * 1024;

/// The longest method. The registry's longest has 17 letters.
const LONGEST_METHOD: usize = 32;

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A complete head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) framing: Framing,
}

/// How large a head may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) size: usize,
    pub(super) fields: usize,
}

/// How far a head has been read.
#[derive(Debug, Default)]
pub(super) struct Scan {
    scanned: usize,
    line: usize,
    version: Option<Version>,
    fields: usize,
    length: Option<u64>,
    is_chunked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

impl Scan {
    /// Reads on in `bytes`, which are the same as before and more; `None` while the head is not complete.
    pub(super) fn read(&mut self, bytes: &[u8], bounds: Bounds) -> Result<Option<Head>, Refusal> {
        while let Some(feed) = memchr(b'\n', &bytes[self.scanned..]) {
            let end = self.scanned + feed;
            self.scanned = end + 1;
            if self.scanned > bounds.size {
                return Err(self.too_large());
            }
            // A bare line feed ends a line for some recipients and not for others.
            let line = bytes[self.line..end].strip_suffix(b"\r").ok_or(Refusal::MalformedRequest)?;
            self.line = self.scanned;
            if self.read_line(line, bounds)? {
                return Ok(Some(Head { length: self.scanned, framing: self.framing()? }));
            }
        }
        self.scanned = bytes.len();
        self.check_unfinished(&bytes[self.line..], bounds)?;
        Ok(None)
    }

    /// Whether this line was the empty one at the end.
    fn read_line(&mut self, line: &[u8], bounds: Bounds) -> Result<bool, Refusal> {
        match self.version {
            // Empty lines before a request are forgiven (section 2.2).
            None if line.is_empty() => Ok(false),
            None if line.len() > LONGEST_LINE => Err(Refusal::TargetTooLong),
            None => {
                self.version = Some(request_line(line)?);
                Ok(false)
            }
            Some(_) if line.is_empty() => Ok(true),
            Some(_) if self.fields == bounds.fields => Err(Refusal::HeaderTooLarge),
            Some(_) => {
                self.fields += 1;
                self.field(line)?;
                Ok(false)
            }
        }
    }

    fn check_unfinished(&self, line: &[u8], bounds: Bounds) -> Result<(), Refusal> {
        // Whoever does not begin with a method does not speak HTTP: a TLS handshake, for one, has no line to wait for.
        let is_foreign = self.version.is_none() && line.first().is_some_and(|&byte| !is_token(byte) && byte != b'\r');
        if is_foreign {
            return Err(Refusal::MalformedRequest);
        }
        // The last byte may be half of the line's end.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.version.is_none() && line.len() > LONGEST_LINE {
            return Err(Refusal::TargetTooLong);
        }
        if self.scanned >= bounds.size { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> Refusal {
        if self.version.is_none() { Refusal::TargetTooLong } else { Refusal::HeaderTooLarge }
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let colon = line.iter().position(|&byte| byte == b':').ok_or(Refusal::MalformedRequest)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // White space before the colon, and a line that continues the one before, both end here.
        let is_name = !name.is_empty() && name.iter().all(|&byte| is_token(byte));
        // To the end whatever comes: many bytes are then looked at in one step.
        let is_value = value.iter().fold(true, |all, &byte| all & ((byte >= b' ') & (byte != 0x7f) | (byte == b'\t')));
        if !is_name || !is_value {
            return Err(Refusal::MalformedRequest);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            return self.content_length(value);
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return self.transfer_coding(value);
        }
        Ok(())
    }

    /// The same length twice might be forgiven (RFC 9110, section 8.6), but then the backend gets it twice as well, and
    /// need not be as kind.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = value.trim_ascii();
        // `parse` would take a sign.
        let are_digits = digits.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(digits).ok().filter(|_| are_digits).and_then(|digits| digits.parse().ok());
        match self.length.replace(length.ok_or(Refusal::MalformedRequest)?) {
            Some(_) => Err(Refusal::MalformedRequest),
            None => Ok(()),
        }
    }

    /// `chunked`, and once (section 6.1). Any other coding would be lost on the way: bodies are framed anew.
    fn transfer_coding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let is_again = std::mem::replace(&mut self.is_chunked, true);
        if is_again || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::MalformedRequest);
        }
        Ok(())
    }

    /// A coding overrides a length (section 6.3). Pingora then closes the connection after the answer.
    fn framing(&self) -> Result<Framing, Refusal> {
        match (self.is_chunked, self.length) {
            (true, _) if self.version == Some(Version::Http10) => Err(Refusal::MalformedRequest),
            (true, _) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::None),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

fn request_line(line: &[u8]) -> Result<Version, Refusal> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::MalformedRequest);
    };
    if method.is_empty() || !method.iter().all(|&byte| is_token(byte)) {
        return Err(Refusal::MalformedRequest);
    }
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(Refusal::MalformedRequest),
    };
    // Pingora would answer CONNECT itself, without a hook.
    if method.len() > LONGEST_METHOD || method == b"CONNECT" {
        return Err(Refusal::MethodNotSupported);
    }
    // Pingora would encode these bytes, and what a backend gets would not be what we routed by.
    if !is_form_of_target(target) || !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Refusal::BadTarget);
    }
    Ok(version)
}

/// A path, a whole URI, or the asterisk (section 3.2). Of anything else Pingora would forward what it takes for a path.
fn is_form_of_target(target: &[u8]) -> bool {
    let begins = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    target.first() == Some(&b'/') || target == b"*" || begins(b"http://") || begins(b"https://")
}

/// Whether a byte may stand in a token (RFC 9110, section 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Every byte of every name is asked about, so the answers are laid out.
const TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        token[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    token
};

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { size: 16 * 1024, fields: 5 };

    /// What the scan says, which must be the same however the bytes are cut.
    fn check(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
        let at_once = Scan::default().read(bytes, BOUNDS);
        let mut scan = Scan::default();
        let mut one_by_one = Ok(None);
        for end in 1..=bytes.len() {
            one_by_one = scan.read(&bytes[..end], BOUNDS);
            if one_by_one != Ok(None) {
                break;
            }
        }
        let beginning = String::from_utf8_lossy(&bytes[..bytes.len().min(100)]);
        assert_eq!(at_once, one_by_one, "cut or not: {beginning:?}");
        at_once
    }

    fn framing(fields: &str) -> Result<Framing, Refusal> {
        check(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes()).map(|head| head.unwrap().framing)
    }

    #[test]
    fn a_head_ends_at_the_empty_line() {
        let head = "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n";
        for after in ["", "GET / HTTP/1.1\r\n\r\n", "\0\n\n"] {
            let found = check(format!("{head}{after}").as_bytes());
            assert_eq!(found, Ok(Some(Head { length: head.len(), framing: Framing::None })));
        }
        assert_eq!(check(b"\r\n\r\nGET / HTTP/1.0\r\n\r\n").unwrap().unwrap().length, 22);
        for end in 0..head.len() {
            assert_eq!(check(&head.as_bytes()[..end]), Ok(None));
        }
    }

    #[test]
    fn the_framing_is_what_both_fields_say() {
        assert_eq!(framing(""), Ok(Framing::None));
        assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::None));
        assert_eq!(framing("CONTENT-LENGTH:5 \r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(framing("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Ok(Framing::Chunked));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 5,\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: ,chunked\r\n",
            "Transfer-Encoding: chunked, gzip\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
        ] {
            assert_eq!(framing(fields), Err(Refusal::MalformedRequest), "{fields:?}");
        }
        let old = check(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(old, Err(Refusal::MalformedRequest));
    }

    #[test]
    fn malformed_heads_are_refused_as_soon_as_they_can_be() {
        for head in [
            "\x16\x03\x01",
            " GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\n",
            "GET /\r\n",
            "GET / HTTP/2.0\r\n",
            "GET / HTTP/1.1 \r\n",
            "GET  / HTTP/1.1\r\n",
            "GET / a HTTP/1.1\r\n",
            "G(T / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n",
            "GET / http/1.1\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n",
            "GET / HTTP/1.1\r\nHost\r\n",
            "GET / HTTP/1.1\r\n: a\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n c\r\n",
            "GET / HTTP/1.1\r\nA: \0\r\n",
            "GET / HTTP/1.1\r\nA: b\rc\r\n",
            "GET / HTTP/1.1\r\nA: b\n",
            "GET / HTTP/1.1\r\nA\x01: b\r\n",
        ] {
            assert_eq!(check(head.as_bytes()), Err(Refusal::MalformedRequest), "{head:?}");
        }
    }

    #[test]
    fn what_is_neither_a_path_nor_a_uri_is_refused() {
        for target in ["/\0", "/\x7f", "/\u{e9}", "/\t", "", "a:1", "a", "?a", "@a/", "ftp://a/", "/a#b"] {
            assert_eq!(check(format!("GET {target} HTTP/1.1\r\n").as_bytes()), Err(Refusal::BadTarget), "{target:?}");
        }
    }

    #[test]
    fn methods_that_no_proxy_passes_on_are_refused() {
        let long = "M".repeat(33);
        for method in ["CONNECT", &long] {
            let line = format!("{method} a:1 HTTP/1.1\r\n");
            assert_eq!(check(line.as_bytes()), Err(Refusal::MethodNotSupported));
        }
        assert_eq!(check(b"PROPFIND / HTTP/1.1\r\n"), Ok(None));
    }

    #[test]
    fn a_head_is_bounded_in_every_direction() {
        let fields = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(check(fields(5).as_bytes()).is_ok());
        assert_eq!(check(fields(6).as_bytes()), Err(Refusal::HeaderTooLarge));
        let size = |bytes: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(bytes - 23));
        assert_eq!(check(size(BOUNDS.size).as_bytes()).unwrap().unwrap().length, BOUNDS.size);
        assert_eq!(check(size(BOUNDS.size + 1).as_bytes()), Err(Refusal::HeaderTooLarge));
        let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(bytes - 14));
        assert_eq!(check(target(LONGEST_LINE).as_bytes()), Ok(None));
        assert_eq!(check(target(LONGEST_LINE + 1).as_bytes()), Err(Refusal::TargetTooLong));
        assert_eq!(check("M".repeat(LONGEST_LINE + 1).as_bytes()), Err(Refusal::TargetTooLong));
        assert_eq!(check("\r\n".repeat(BOUNDS.size).as_bytes()), Err(Refusal::TargetTooLong));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_depend_on_how_they_are_cut(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "GET ", "/", " HTTP/1.1", "\r\n", "\r", "\n", "A:", " b", "Content-Length:", "5", ",", ":", "\0",
                "Transfer-Encoding: ", "chunked", "\r\n\r\n", "\u{e9}",
            ]), 0..40),
        ) {
            let _ = check(parts.concat().as_bytes());
        }
    }
}
