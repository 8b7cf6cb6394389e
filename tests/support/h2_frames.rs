//! HTTP/2 frame by frame, as no client library would send it.
//!
//! Heads are written as HPACK literals without an index, so whatever stands in a field goes onto the wire as it is.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::in_time;

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The head of `GET /` as HPACK, of indexed fields and a literal authority.
pub const GET_HEAD: &[u8] = &[0x82, 0x84, 0x86, 0x41, 1, b'a'];

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK, each a literal that is not indexed.
pub fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

/// RFC 7541, section 5.1, with a prefix of 7 bits.
fn length(mut length: usize, block: &mut Vec<u8>) {
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
        return;
    }
    block.push(127);
    length -= 127;
    while length >= 128 {
        block.push(u8::try_from(length % 128).unwrap() | 128);
        length /= 128;
    }
    block.push(u8::try_from(length).unwrap());
}

/// How a stream ended for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a head of this status; 0 is one that no index of HPACK's table stands for.
    Status(u16),
    /// The stream was reset.
    Reset,
    /// The connection was ended.
    Goodbye,
}

/// A connection without TLS whose frames the test writes itself.
pub struct RawH2 {
    stream: TcpStream,
}

impl RawH2 {
    /// Connects and says hello.
    pub async fn open(address: SocketAddr) -> Self {
        let mut stream = in_time("connecting", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await.unwrap();
        RawH2 { stream }
    }

    /// Sends bytes to a peer that may be gone.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = in_time("sending", self.stream.write_all(bytes)).await;
    }

    /// Reads until this stream has ended, in whatever way.
    pub async fn ending(&mut self, wanted: u32) -> Ending {
        in_time("a stream's end", async {
            loop {
                let Some((kind, stream, payload)) = self.next().await else { return Ending::Goodbye };
                match kind {
                    HEADERS if stream == wanted => return Ending::Status(status(&payload)),
                    RST_STREAM if stream == wanted => return Ending::Reset,
                    GOAWAY => return Ending::Goodbye,
                    _ => {}
                }
            }
        })
        .await
    }

    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, _, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((kind, u32::from_be_bytes(stream) & (u32::MAX >> 1), payload))
    }
}

/// RFC 7541, appendix A: seven statuses have an index. An update of the table's size may come before.
fn status(block: &[u8]) -> u16 {
    let first = block.iter().find(|&&byte| byte & 0xe0 != 0x20).copied().unwrap_or_default();
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    first.checked_sub(0x88).and_then(|index| indexed.get(usize::from(index))).copied().unwrap_or_default()
}
