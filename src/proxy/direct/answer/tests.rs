//! Tests of reading answers: what is meant, cut anywhere, and what is no answer.

use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::protocols::l4::stream::Stream as L4;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::*;

/// What was made of an answer.
#[derive(Debug, PartialEq)]
struct Read {
    heads: Vec<String>,
    body: Vec<u8>,
    /// It came to its end.
    is_whole: bool,
    leaves_the_connection: bool,
}

fn told(head: &ResponseHeader) -> String {
    let fields = head.headers.iter().map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii()));
    let reason = head.get_reason_phrase().unwrap_or_default();
    let line = format!("{:?} {} {reason}", head.version, head.status.as_u16());
    std::iter::once(line).chain(fields).collect::<Vec<_>>().join("\n")
}

/// Reads bytes that come in such pieces, and then the end.
fn read<'a>(is_to_head: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Read> {
    let mut answer = Answer::to(is_to_head);
    let mut read = Read { heads: Vec::new(), body: Vec::new(), is_whole: false, leaves_the_connection: false };
    let mut is_final = false;
    for piece in pieces {
        answer.room().extend_from_slice(piece);
        while !is_final && let Some(head) = answer.head()? {
            is_final = !head.status.is_informational();
            read.heads.push(told(&head));
        }
        while is_final
            && let Some(part) = answer.part()?
            && !part.is_empty()
        {
            read.body.extend_from_slice(&part);
        }
    }
    read.leaves_the_connection = answer.leaves_the_connection();
    answer.end()?;
    read.is_whole = answer.is_over();
    Ok(read)
}

/// What Pingora's own session makes of it.
async fn read_by_pingora(is_to_head: bool, bytes: &[u8]) -> Result<Read> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let stream: Stream = Box::new(L4::from(ours));
    let mut session = HttpSession::new(stream);
    let method = if is_to_head { "HEAD" } else { "GET" };
    session.write_request_header(Box::new(pingora::http::RequestHeader::build(method, b"/", None)?)).await?;
    theirs.write_all(bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut read = Read { heads: Vec::new(), body: Vec::new(), is_whole: false, leaves_the_connection: false };
    loop {
        let head = session.read_resp_header_parts().await?;
        read.heads.push(told(&head));
        if !head.status.is_informational() {
            break;
        }
    }
    while !session.is_body_done() {
        read.body.extend_from_slice(&session.read_body_bytes().await?.unwrap_or_default());
    }
    read.is_whole = true;
    session.respect_keepalive();
    read.leaves_the_connection = session.reuse().await.is_some();
    Ok(read)
}

/// Whole answers: to HEAD or not, the bytes, the body, and whether the connection can be used again.
const WHOLE: &[(bool, &str, &str, bool)] = &[
    (false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true),
    (false, "HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX: a\r\nx: b \r\n\r\nhello", "hello", true),
    (false, "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", true),
    (false, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "hello", true),
    (false, "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\nhello", "hello", true),
    (false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", "hello", false),
    (false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\nhello", "hello", false),
    (false, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", "hello", false),
    (false, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", false),
    (false, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\nhello", "hello", true),
    (false, "HTTP/1.1 200 OK\r\n\r\nhello", "hello", false),
    (false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 3\r\n\r\nhello", "hello", false),
    (false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello", true),
    (
        false,
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n1;a=\"b\"\r\nh\r\n4  \r\nello\r\n000\r\nX: y\r\nZ: a\r\n\r\n",
        "hello",
        true,
    ),
    (false, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", true),
    (
        false,
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "a",
        false,
    ),
    (true, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "", true),
    (true, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", true),
    (false, "HTTP/1.1 204 No Content\r\n\r\n", "", true),
    (false, "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "", true),
    (false, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "", true),
    (false, "HTTP/1.1 200 OK\r\nX-A : b\r\nX-B: c\r\n  d\r\nContent-Length: 0\r\n\r\n", "", true),
];

#[tokio::test]
async fn an_answer_is_read_as_pingora_reads_it_wherever_it_is_cut() {
    for (is_to_head, bytes, body, leaves_the_connection) in WHOLE {
        let whole = read(*is_to_head, [bytes.as_bytes()]).unwrap();
        assert_eq!(whole.body.escape_ascii().to_string(), *body, "{bytes}");
        assert_eq!((whole.is_whole, whole.leaves_the_connection), (true, *leaves_the_connection), "{bytes}");
        assert_eq!(read_by_pingora(*is_to_head, bytes.as_bytes()).await.unwrap(), whole, "{bytes}");
        assert_eq!(read(*is_to_head, bytes.as_bytes().chunks(1)).unwrap(), whole, "byte by byte: {bytes}");
        for cut in 0..bytes.len() {
            let (one, other) = bytes.as_bytes().split_at(cut);
            assert_eq!(read(*is_to_head, [one, other]).unwrap(), whole, "cut after {cut}: {bytes}");
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_or_not_a_whole_one_is_an_error() {
    use ErrorType::{ConnectionClosed, InvalidHTTPHeader};
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let bad_chunk = ErrorType::new("InvalidChunk");
    let cases = [
        (String::new(), ConnectionClosed),
        ("HTTP/1.1 200 O".to_owned(), ConnectionClosed),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello".to_owned(), ConnectionClosed),
        (chunked("5\r\nhello\r\n"), ConnectionClosed),
        (chunked("5\r\nhell"), ConnectionClosed),
        (chunked("0\r\nX: y\r\n"), ConnectionClosed),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), InvalidHTTPHeader),
        ("HTTP/1.1 OK\r\n\r\n".to_owned(), InvalidHTTPHeader),
        ("HTTP/1.1 200 OK\r\nX A: b\r\n\r\n".to_owned(), InvalidHTTPHeader),
        ("HTTP/1.1 200 OK\r\nX-A: b\0c\r\n\r\n".to_owned(), InvalidHTTPHeader),
        ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n".to_owned(), InvalidHTTPHeader),
        ("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n".to_owned(), InvalidHTTPHeader),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5,\r\n\r\nhello".to_owned(), InvalidHTTPHeader),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_owned(), InvalidHTTPHeader),
        (format!("HTTP/1.1 200 OK\r\nContent-Length: 1{}\r\n\r\n", "0".repeat(20)), InvalidHTTPHeader),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(MOST_FIELDS + 1)), InvalidHTTPHeader),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(LONGEST_HEAD)), InvalidHTTPHeader),
        (chunked("x\r\n"), bad_chunk.clone()),
        (chunked("-5\r\nhello\r\n"), bad_chunk.clone()),
        (chunked("\r\n"), bad_chunk.clone()),
        (chunked("5\r\nhello0\r\n\r\n"), bad_chunk.clone()),
        (chunked("5\r\nhello\n0\r\n\r\n"), bad_chunk.clone()),
        (chunked("11112222333344445\r\n"), bad_chunk.clone()),
        (chunked(&format!("5;{}", "x".repeat(chunks::LONGEST_LINE))), bad_chunk.clone()),
        (chunked(&format!("0\r\n{}", "X: y\r\n".repeat(chunks::LONGEST_TRAILER / 6 + 1))), bad_chunk.clone()),
        (chunked("0\r\nX: y\n\r\n"), bad_chunk.clone()),
    ];
    for (bytes, kind) in cases {
        let start: String = bytes.chars().take(80).collect();
        let error = read(false, [bytes.as_bytes()]).expect_err(&start);
        assert_eq!(error.etype(), &kind, "{start}");
        let by_bytes = (bytes.len() < 4096).then(|| read(false, bytes.as_bytes().chunks(1)));
        let kind_by_bytes = by_bytes.map(|read| read.expect_err(&start).etype().clone());
        assert!(kind_by_bytes.is_none_or(|found| found == kind), "byte by byte: {start}");
    }
}

#[test]
fn what_comes_byte_by_byte_is_not_parsed_with_each_of_them() {
    let mut answer = Answer::to(false);
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y\r\n ".repeat(1000));
    let (mut parsed, mut found) = (0, None);
    for byte in head.as_bytes() {
        answer.room().extend_from_slice(&[*byte]);
        let before = answer.parse_at;
        found = answer.head().unwrap();
        parsed += usize::from(answer.parse_at != before);
    }
    assert!(found.is_some() && parsed < 20, "parsed {parsed} times");
}

#[test]
fn empty_lines_before_a_head_are_dropped_as_they_come_and_are_not_endless() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let (few, many) = ("\r\n\n".repeat(20_000), "\r\n".repeat(600_000));
    let pieces = few.as_bytes().chunks(7).chain(head.as_bytes().chunks(5));
    assert_eq!(read(false, pieces).unwrap().heads.len(), 1);

    let mut answer = Answer::to(false);
    let mut longest = 0;
    let refused = many.as_bytes().chunks(7).find_map(|piece| {
        answer.room().extend_from_slice(piece);
        let refused = answer.head().err();
        longest = longest.max(answer.input.len());
        refused
    });
    assert!(refused.is_some() && longest <= 1, "{longest} bytes were kept");
}

#[test]
fn the_last_piece_is_known_to_be_the_last() {
    let mut answer = Answer::to(false);
    answer
        .room()
        .extend_from_slice(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    answer.head().unwrap().unwrap();
    assert_eq!((answer.part().unwrap().unwrap().as_ref(), answer.is_over()), (&b"ab"[..], false));
    assert_eq!((answer.part().unwrap().unwrap().as_ref(), answer.is_over()), (&b"c"[..], true));
    assert_eq!(answer.part().unwrap().unwrap(), "");
}

proptest! {
    #[test]
    fn chunks_of_any_size_cut_anywhere_are_one_body(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        cuts in prop::collection::vec(1..50_usize, 1..20),
    ) {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        let mut left = bytes.as_slice();
        let pieces = cuts.iter().cycle().map_while(|cut| {
            let (piece, rest) = left.split_at((*cut).min(left.len()));
            left = rest;
            (!piece.is_empty()).then_some(piece)
        });
        let read = read(false, pieces).unwrap();
        prop_assert_eq!(read.body, chunks.concat());
        prop_assert!(read.is_whole && read.leaves_the_connection);
    }

    #[test]
    fn nothing_that_comes_is_too_much(bytes in prop::collection::vec(any::<u8>(), 0..400), line in 0..3_usize) {
        let head = ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"][line];
        let bytes = [head.as_bytes(), &bytes].concat();
        let at_once = read(false, [bytes.as_slice()]);
        let by_bytes = read(false, bytes.chunks(1));
        prop_assert_eq!(at_once.is_ok(), by_bytes.is_ok());
    }
}
