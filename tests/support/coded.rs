//! What the tests of compression share: a front door whose one route compresses, bodies, and the codings of content.
//!
//! The codings here are for what a test is about beside them. That the front door's own are whole and can be read by
//! everybody is proven with decoders of others, in `compression_clients.rs`.

use std::io::{Read as _, Write as _};

use brotli::{CompressorWriter, Decompressor};
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use h2::RecvStream;
use zstd_safe::{CCtx, CParameter, DCtx, InBuffer, OutBuffer};

use super::bytes_on_the_wire::Head;
use super::{Backend, Client, Lb, Response, in_time};

/// All of them, as they are named in fields.
pub const CODINGS: [&str; 4] = ["zstd", "br", "gzip", "deflate"];

/// The type of most answers here.
pub const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A front door whose one route compresses as `compress` says.
pub async fn compressing(backend: &Backend, compress: &str) -> Lb {
    Lb::with_backends([backend]).yaml_route(&format!("compress: {compress}")).start().await
}

/// GET for host `a` with these lines, on a connection of its own.
pub async fn get(lb: &Lb, target: &str, lines: &str) -> Response {
    lb.send(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await
}

/// The same for a client that reads this coding.
pub async fn get_in(lb: &Lb, target: &str, coding: &str) -> Response {
    get(lb, target, &format!("Accept-Encoding: {coding}\r\n")).await
}

/// Text that can be made smaller, and in which no two lines are alike.
pub fn text(length: usize) -> String {
    let lines = (0..).flat_map(|number: usize| format!("{{\"number\": {number}}}\n").into_bytes());
    String::from_utf8(lines.take(length).collect()).unwrap()
}

/// A 200 whose body is these bytes.
pub fn answer(fields: &[(&str, &str)], body: &[u8]) -> Bytes {
    let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
    let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat().into()
}

/// One chunk of a body.
pub fn chunk(bytes: impl AsRef<[u8]>) -> Bytes {
    let bytes = bytes.as_ref();
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat().into()
}

/// This content in a coding.
pub fn encode(coding: &str, content: &[u8]) -> Vec<u8> {
    let mut coded = Vec::with_capacity(content.len() + 4096);
    match coding {
        "gzip" => compress(Compress::new_gzip(Compression::new(6), 15), content, &mut coded),
        "deflate" => compress(Compress::new(Compression::new(6), true), content, &mut coded),
        "br" => CompressorWriter::new(&mut coded, 4096, 4, 22).write_all(content).unwrap(),
        "zstd" => {
            let mut context = CCtx::create();
            // So that damage can be seen, as it can in the other codings.
            context.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
            context.compress2(&mut coded, content).unwrap();
        }
        other => panic!("no such coding: {other}"),
    }
    coded
}

fn compress(mut codec: Compress, content: &[u8], coded: &mut Vec<u8>) {
    assert_eq!(codec.compress_vec(content, coded, FlushCompress::Finish).unwrap(), Status::StreamEnd);
}

/// The content of a body that must be one whole stream.
pub fn decode(coding: &str, body: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(coding);
    reader.push(body);
    assert!(reader.is_whole(), "this {coding} has no end: {} bytes became {}", body.len(), reader.content().len());
    reader.content().to_vec()
}

/// The content of an answer's body, in whatever coding it says that it is.
pub fn content(answer: &Response) -> Vec<u8> {
    match answer.field("content-encoding") {
        Some(coding) => decode(coding, &answer.body),
        None => answer.body.to_vec(),
    }
}

/// Follows a coded stream piece by piece.
pub struct Reader {
    codec: Codec,
    content: Vec<u8>,
    whole: bool,
}

enum Codec {
    Zlib(Decompress),
    Brotli(Vec<u8>),
    Zstd(DCtx<'static>),
    Identity,
}

impl Reader {
    pub fn new(coding: &str) -> Self {
        let codec = match coding {
            "gzip" => Codec::Zlib(Decompress::new_gzip(15)),
            "deflate" => Codec::Zlib(Decompress::new(true)),
            "br" => Codec::Brotli(Vec::new()),
            "zstd" => Codec::Zstd(DCtx::create()),
            "identity" => Codec::Identity,
            other => panic!("no such coding: {other}"),
        };
        Reader { codec, content: Vec::new(), whole: false }
    }

    /// Takes in the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        assert!(bytes.is_empty() || !self.whole, "{} bytes behind the end of a stream", bytes.len());
        match &mut self.codec {
            Codec::Zlib(codec) => {
                let (before, mut status) = (codec.total_in(), Status::Ok);
                while status == Status::Ok {
                    let taken = (codec.total_in() - before) as usize;
                    self.content.reserve(64 << 10);
                    let full = self.content.len();
                    status = codec.decompress_vec(&bytes[taken..], &mut self.content, FlushDecompress::Sync).unwrap();
                    if taken == bytes.len() && self.content.len() == full {
                        break;
                    }
                }
                self.whole = status == Status::StreamEnd;
                assert_eq!((codec.total_in() - before) as usize, bytes.len(), "bytes behind the end of a stream");
            }
            Codec::Brotli(so_far) => {
                // From the start each time: of all decoders this one alone tells neither its end nor its state.
                let content = |coded: &[u8]| {
                    let mut content = Vec::new();
                    let whole = Decompressor::new(coded, 4096).read_to_end(&mut content).is_ok();
                    (content, whole)
                };
                so_far.extend_from_slice(bytes);
                (self.content, self.whole) = content(so_far);
                let early = self.whole && !bytes.is_empty() && content(&so_far[..so_far.len() - 1]).1;
                assert!(!early, "bytes behind the end of a stream");
            }
            Codec::Zstd(context) => {
                let (mut input, mut room) = (InBuffer::around(bytes), [0; 64 << 10]);
                loop {
                    let mut out = OutBuffer::around(&mut room[..]);
                    let left = context.decompress_stream(&mut out, &mut input).unwrap();
                    self.content.extend_from_slice(out.as_slice());
                    self.whole = left == 0;
                    if self.whole || (input.pos() == bytes.len() && out.as_slice().len() < 64 << 10) {
                        break;
                    }
                }
                assert_eq!(input.pos(), bytes.len(), "bytes behind the end of a stream");
            }
            Codec::Identity => self.content.extend_from_slice(bytes),
        }
    }

    /// What can be read of it so far.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Whether the stream has ended.
    pub fn is_whole(&self) -> bool {
        self.whole || matches!(self.codec, Codec::Identity)
    }
}

/// The body of an answer on its way, over either protocol.
pub enum Arriving {
    Http1(Box<Client>),
    Http2(RecvStream),
}

impl Arriving {
    /// What comes next; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Http1(client) => Some(client.read_chunk().await.unwrap()).filter(|chunk| !chunk.is_empty()),
            Self::Http2(stream) => {
                let part = stream.data().await?.unwrap();
                stream.flow_control().release_capacity(part.len()).unwrap();
                Some(part)
            }
        }
    }

    /// Reads until just this has come.
    pub async fn until(&mut self, reader: &mut Reader, wanted: &[u8]) {
        while reader.content() != wanted {
            let got = String::from_utf8_lossy(reader.content()).into_owned();
            assert!(wanted.starts_with(reader.content()), "{got:?} is no beginning of what was sent");
            let part =
                in_time(&format!("{} bytes more, of {}", wanted.len() - got.len(), wanted.len()), self.next()).await;
            let part = part.unwrap_or_else(|| panic!("it ended after {got:?}"));
            reader.push(&part);
        }
    }

    /// Reads to the end of a stream that must be whole.
    pub async fn finish(&mut self, reader: &mut Reader) {
        while let Some(part) = in_time("the end of a body", self.next()).await {
            reader.push(&part);
        }
        assert!(reader.is_whole(), "the body has ended, and its stream has not");
    }
}

/// Sends a GET, and reads the head of its answer, on a connection of its own.
pub async fn begin(lb: &Lb, target: &str, lines: &str) -> (Head, Arriving) {
    let mut client = lb.raw().await;
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).await;
    let head = client.read_head().await;
    (head, Arriving::Http1(Box::new(client)))
}
