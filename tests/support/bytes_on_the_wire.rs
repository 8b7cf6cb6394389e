//! Reading HTTP/1.1 from a socket, byte by byte as it came: heads, bodies by length or in chunks, trailers.
//!
//! Deliberately not an HTTP library: a library would tidy up what a test wants to see.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// More than any test sends; a runaway peer fails the test instead of filling the memory.
const MOST: usize = 64 << 20;

/// Bytes from a peer, with what was read beyond the last message kept for the next.
pub struct Wire<S> {
    pub stream: S,
    ahead: BytesMut,
}

/// The head of a message: the first line and the fields in their order and spelling.
#[derive(Clone, Debug)]
pub struct Head {
    pub first_line: String,
    pub fields: Vec<(String, String)>,
    pub raw: Bytes,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// A body as the receiver understands it, and as it was on the wire.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub content: Bytes,
    pub trailers: Vec<(String, String)>,
    pub raw: Bytes,
}

impl Head {
    /// The first value of a field, in any spelling.
    pub fn field(&self, name: &str) -> Option<&str> {
        value(&self.fields, name)
    }

    /// The framing that the fields announce; `otherwise` if they announce none.
    pub fn framing(&self, otherwise: Framing) -> Framing {
        let chunked = self.field("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().ends_with("chunked"));
        match self.field("content-length").and_then(|v| v.parse().ok()) {
            _ if chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => otherwise,
        }
    }
}

/// The first value of a field, in any spelling.
pub fn value<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

impl<S: AsyncRead + Unpin> Wire<S> {
    pub fn new(stream: S) -> Self {
        Wire { stream, ahead: BytesMut::new() }
    }

    /// The next head; `None` if the peer closed before its first byte.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = find(&self.ahead, b"\r\n\r\n") {
                break at + 4;
            }
            if self.more().await? == 0 {
                return if self.ahead.is_empty() { Ok(None) } else { Err(cut_short("a head", &self.ahead)) };
            }
        };
        let raw = self.ahead.split_to(end).freeze();
        let text = String::from_utf8_lossy(&raw[..end - 4]).into_owned();
        let mut lines = text.split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        Ok(Some(Head { first_line, fields: lines.map(field).collect(), raw }))
    }

    /// The body that follows a head.
    pub async fn body(&mut self, framing: Framing) -> io::Result<Body> {
        match framing {
            Framing::None => Ok(Body::default()),
            Framing::Length(length) => {
                let raw = self.exactly(length).await?;
                Ok(Body { content: raw.clone(), raw, trailers: Vec::new() })
            }
            Framing::UntilClose => {
                let raw = self.rest().await?;
                Ok(Body { content: raw.clone(), raw, trailers: Vec::new() })
            }
            Framing::Chunked => self.chunks().await,
        }
    }

    /// Just so many bytes.
    pub async fn exactly(&mut self, length: usize) -> io::Result<Bytes> {
        while self.ahead.len() < length {
            if self.more().await? == 0 {
                return Err(cut_short(&format!("{length} bytes"), &self.ahead));
            }
        }
        Ok(self.ahead.split_to(length).freeze())
    }

    /// Whatever comes next; empty at the end of the stream.
    pub async fn some(&mut self) -> io::Result<Bytes> {
        if self.ahead.is_empty() {
            self.more().await?;
        }
        Ok(self.ahead.split().freeze())
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> io::Result<Bytes> {
        while self.more().await? > 0 {}
        Ok(self.ahead.split().freeze())
    }

    /// The next chunk as it is on the wire and what is in it, which is nothing for the last one; what follows that stays.
    pub async fn chunk(&mut self) -> io::Result<(Bytes, Bytes)> {
        let line = self.line().await?;
        let text = String::from_utf8_lossy(&line);
        let size = text.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| broken(&format!("chunk size {text:?}")))?;
        if size == 0 {
            return Ok((line, Bytes::new()));
        }
        let chunk = self.exactly(size + 2).await?;
        if !chunk.ends_with(b"\r\n") {
            return Err(broken("a chunk that is longer than it says"));
        }
        Ok(([line, chunk.clone()].concat().into(), chunk.slice(..size)))
    }

    async fn chunks(&mut self) -> io::Result<Body> {
        let (mut content, mut raw) = (BytesMut::new(), BytesMut::new());
        loop {
            let (line, chunk) = self.chunk().await?;
            raw.extend_from_slice(&line);
            if chunk.is_empty() {
                break;
            }
            content.extend_from_slice(&chunk);
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line().await?;
            raw.extend_from_slice(&line);
            match line.trim_ascii() {
                [] => return Ok(Body { content: content.freeze(), trailers, raw: raw.freeze() }),
                trailer => trailers.push(field(&String::from_utf8_lossy(trailer))),
            }
        }
    }

    async fn line(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(at) = find(&self.ahead, b"\r\n") {
                return Ok(self.ahead.split_to(at + 2).freeze());
            }
            if self.more().await? == 0 {
                return Err(cut_short("a line", &self.ahead));
            }
        }
    }

    async fn more(&mut self) -> io::Result<usize> {
        if self.ahead.len() > MOST {
            return Err(broken("more bytes than any test sends"));
        }
        self.stream.read_buf(&mut self.ahead).await
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn cut_short(what: &str, got: &[u8]) -> io::Error {
    let got = String::from_utf8_lossy(&got[..got.len().min(200)]).into_owned();
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("the peer closed within {what}, after {got:?}"))
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
