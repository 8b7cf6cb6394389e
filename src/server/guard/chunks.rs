//! Where does a chunked body end, and is every byte of its framing allowed? (RFC 9112, section 7.1)
//!
//! Pingora decodes the chunks; it is lenient about what stands between them, and what one recipient skips another may
//! read as something else. Here is the grammar to the letter. Bytes go in as they come, cut anywhere.

use super::scan::is_token;

/// Bytes of one line with a chunk's size; a size needs 16, the rest is extensions that nobody uses.
const LONGEST_LINE: usize = 1024;

/// Bytes of all trailer fields.
const LONGEST_TRAILER: usize = 16 * 1024;

/// The framing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadChunk;

/// How far a chunked body has been read.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    /// The size while it is read, and what is left of the chunk afterwards.
    left: u64,
    /// Bytes of framing in the current line, or in the trailer.
    framing: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SizeStart,
    Size,
    /// White space that only a `;` may end.
    BeforeExtension,
    ExtensionStart,
    ExtensionName,
    AfterExtensionName,
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    QuotedEnd,
    LineEnd,
    Data,
    DataEnd,
    DataEndFeed,
    FieldStart,
    FieldName,
    FieldValue,
    FieldEnd,
    LastFeed,
    Done,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { state: State::SizeStart, left: 0, framing: 0 }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on; how many of the bytes belong to this body. Fewer than all only if it ends among them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if self.state == State::Data {
                let rest = bytes.len() - at;
                let step = usize::try_from(self.left).unwrap_or(rest).min(rest);
                at += step;
                self.left -= step as u64;
                if self.left == 0 {
                    self.state = State::DataEnd;
                }
            } else {
                self.state = self.next(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn next(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.framing += 1;
        let limit = if self.left == 0 && self.is_in_trailer() { LONGEST_TRAILER } else { LONGEST_LINE };
        if self.framing > limit {
            return Err(BadChunk);
        }
        match self.state {
            State::SizeStart | State::Size => self.size(byte),
            State::BeforeExtension
            | State::ExtensionStart
            | State::ExtensionName
            | State::AfterExtensionName
            | State::ValueStart
            | State::Value
            | State::Quoted
            | State::QuotedPair
            | State::QuotedEnd => extension(self.state, byte),
            State::LineEnd => self.line_end(byte),
            State::DataEnd => expect(byte, b'\r', State::DataEndFeed),
            State::DataEndFeed => {
                self.framing = 0;
                expect(byte, b'\n', State::SizeStart)
            }
            State::FieldStart | State::FieldName | State::FieldValue | State::FieldEnd | State::LastFeed => {
                trailer(self.state, byte)
            }
            // Not reached: `take` stops at both.
            State::Data | State::Done => Err(BadChunk),
        }
    }

    fn is_in_trailer(&self) -> bool {
        matches!(
            self.state,
            State::FieldStart | State::FieldName | State::FieldValue | State::FieldEnd | State::LastFeed
        )
    }

    fn size(&mut self, byte: u8) -> Result<State, BadChunk> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            // A size beyond 64 bits is an attempt to make two recipients disagree.
            let shifted = self.left.checked_mul(16).ok_or(BadChunk)?;
            self.left = shifted | u64::from(digit);
            return Ok(State::Size);
        }
        match byte {
            _ if self.state == State::SizeStart => Err(BadChunk),
            b'\r' => Ok(State::LineEnd),
            b';' => Ok(State::ExtensionStart),
            b' ' | b'\t' => Ok(State::BeforeExtension),
            _ => Err(BadChunk),
        }
    }

    fn line_end(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.framing = 0;
        expect(byte, b'\n', if self.left == 0 { State::FieldStart } else { State::Data })
    }
}

fn extension(state: State, byte: u8) -> Result<State, BadChunk> {
    let white = matches!(byte, b' ' | b'\t');
    match (state, byte) {
        (State::BeforeExtension | State::ExtensionStart | State::AfterExtensionName | State::ValueStart, _)
            if white =>
        {
            Ok(state)
        }
        (State::ExtensionName, _) if white => Ok(State::AfterExtensionName),
        (State::Value | State::QuotedEnd, _) if white => Ok(State::BeforeExtension),
        (
            State::BeforeExtension | State::ExtensionName | State::AfterExtensionName | State::Value | State::QuotedEnd,
            b';',
        ) => Ok(State::ExtensionStart),
        (State::ExtensionName | State::Value | State::QuotedEnd, b'\r') => Ok(State::LineEnd),
        (State::ExtensionName | State::AfterExtensionName, b'=') => Ok(State::ValueStart),
        (State::ExtensionStart | State::ExtensionName, _) if is_token(byte) => Ok(State::ExtensionName),
        (State::ValueStart, b'"') => Ok(State::Quoted),
        (State::ValueStart | State::Value, _) if is_token(byte) => Ok(State::Value),
        (State::Quoted, b'"') => Ok(State::QuotedEnd),
        (State::Quoted, b'\\') => Ok(State::QuotedPair),
        (State::Quoted | State::QuotedPair, _) if is_text(byte) => Ok(State::Quoted),
        _ => Err(BadChunk),
    }
}

fn trailer(state: State, byte: u8) -> Result<State, BadChunk> {
    match (state, byte) {
        (State::FieldStart, b'\r') => Ok(State::LastFeed),
        (State::FieldStart | State::FieldName, _) if is_token(byte) => Ok(State::FieldName),
        (State::FieldName, b':') => Ok(State::FieldValue),
        (State::FieldValue, b'\r') => Ok(State::FieldEnd),
        (State::FieldValue, _) if is_text(byte) => Ok(State::FieldValue),
        (State::FieldEnd, b'\n') => Ok(State::FieldStart),
        (State::LastFeed, b'\n') => Ok(State::Done),
        _ => Err(BadChunk),
    }
}

/// What may stand in a field's value or between quotes.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

fn expect(byte: u8, wanted: u8, next: State) -> Result<State, BadChunk> {
    (byte == wanted).then_some(next).ok_or(BadChunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the body in `bytes`, which must be the same however they are cut.
    fn check(bytes: &[u8]) -> Result<Option<usize>, BadChunk> {
        let mut whole = Chunks::new();
        let at_once = whole.take(bytes).map(|length| whole.is_done().then_some(length));
        let mut chunks = Chunks::new();
        let mut one_by_one = Ok(None);
        for (at, byte) in bytes.iter().enumerate() {
            match chunks.take(std::slice::from_ref(byte)) {
                Err(error) => one_by_one = Err(error),
                Ok(_) if chunks.is_done() => one_by_one = Ok(Some(at + 1)),
                Ok(_) => continue,
            }
            break;
        }
        assert_eq!(at_once, one_by_one, "cut or not: {:?}", String::from_utf8_lossy(bytes));
        at_once
    }

    #[test]
    fn a_body_ends_after_its_last_chunk_and_trailer() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "A\r\n0123456789\r\n0005\r\nhello\r\n0\r\n\r\n",
            "5;name\r\nhello\r\n0\r\n\r\n",
            "5;name=value;other=\"a \\\" b\"\r\nhello\r\n0;last\r\n\r\n",
            "5 ; a = b ; c\r\nhello\r\n0\r\n\r\n",
            "0\r\nX-Sum: abc\r\nX-Empty:\r\n\r\n",
        ] {
            let pipelined = format!("{body}GET / HTTP/1.1\r\n");
            assert_eq!(check(pipelined.as_bytes()), Ok(Some(body.len())), "{body:?}");
        }
    }

    #[test]
    fn an_unfinished_body_is_neither_done_nor_bad() {
        for body in ["", "5", "5\r", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\nX: y\r\n"] {
            assert_eq!(check(body.as_bytes()), Ok(None), "{body:?}");
        }
    }

    #[test]
    fn broken_framing_is_found() {
        for body in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5\t\r\nhello\r\n",
            "5;\r\nhello\r\n",
            "5; \r\nhello\r\n",
            "5;;a\r\nhello\r\n",
            "5;a=\r\nhello\r\n",
            "5;a b\r\nhello\r\n",
            "5;a=b \r\nhello\r\n",
            "5;a=\"b\r\nhello\r\n",
            "5;a\0\r\nhello\r\n",
            "5;a=\"\0\"\r\nhello\r\n",
            "5;(\r\nhello\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\rhello\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhellooo\r\n",
            "10000000000000000\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
        ] {
            assert_eq!(check(body.as_bytes()), Err(BadChunk), "{body:?}");
        }
    }

    #[test]
    fn framing_without_end_is_cut() {
        assert_eq!(check(format!("5;{}", "a".repeat(LONGEST_LINE)).as_bytes()), Err(BadChunk));
        assert_eq!(check(format!("0\r\n{}", "a: b\r\n".repeat(LONGEST_TRAILER / 6 + 1)).as_bytes()), Err(BadChunk));
        assert_eq!(check("0".repeat(LONGEST_LINE + 1).as_bytes()), Err(BadChunk));
    }

    #[test]
    fn a_chunk_may_be_larger_than_any_buffer() {
        let mut chunks = Chunks::new();
        assert_eq!(chunks.take(b"ffffffffffffffff\r\n"), Ok(18));
        for _ in 0..100 {
            assert_eq!(chunks.take(&[0; 4096]), Ok(4096));
        }
        assert!(!chunks.is_done());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_depend_on_how_they_are_cut(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "5", "0", "a", ";", "=", "\"", "\\", " ", "\r\n", "\r", "\n", "hello", "X:", "y", "\0", "\r\n0\r\n\r\n",
            ]), 0..40),
        ) {
            let _ = check(parts.concat().as_bytes());
        }
    }
}
