//! Two ways lead to a backend and back, and nobody is to tell them apart: the same exchange on each, byte for byte.
//!
//! `Connection: x-none` names a field, so that the request goes Pingora's own way; without it the direct way is taken.

use crate::support;

use bytes::Bytes;
use support::backend::{chunked_response, response};
use support::bytes_on_the_wire::Framing;
use support::{Act, Backend, Lb, Script, in_time};

/// One exchange, as it is to go on both ways.
struct Case {
    name: &'static str,
    /// The first line, and the fields behind `Host`.
    request: (&'static str, &'static str),
    body: Sends,
    acts: Vec<Act>,
    /// What stands in the client's answer, and in the backend's request.
    seen: (&'static [&'static str], &'static [&'static str]),
}

/// When a client sends what body.
#[derive(Clone, Copy, PartialEq)]
enum Sends {
    Nothing,
    AtOnce(&'static str),
    /// After the first head of an answer.
    Later(&'static str),
    /// Never, though it is announced.
    Never,
}

fn case(name: &'static str, line: &'static str, answer: impl Into<Bytes>) -> Case {
    let acts = vec![Act::ReadBody, Act::Write(answer.into())];
    Case { name, request: (line, ""), body: Sends::Nothing, acts, seen: (&[], &[]) }
}

fn without_a_body() -> Vec<Case> {
    let get = "GET /a?b HTTP/1.1";
    let closing = |bytes: &'static str| vec![Act::ReadBody, Act::Write(bytes.into()), Act::Close];
    vec![
        Case {
            seen: (&["200 Scripted", "Content-Length: 5", "hello"], &["GET /a?b"]),
            ..case("GET", get, response(200, &[], "hello"))
        },
        Case {
            seen: (&["Content-Length: 5", "\r\n\r\n"], &["HEAD /a"]),
            ..case("HEAD", "HEAD /a HTTP/1.1", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        },
        Case { seen: (&["204 No Content"], &[]), ..case("204", get, "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n") },
        Case {
            seen: (&["304 Not Modified", "\"1\""], &[]),
            ..case("304", get, "HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n")
        },
        Case { seen: (&["chunked", "hello"], &[]), ..case("chunks", get, chunked_response(&["hello"], &[])) },
        Case { seen: (&["200 OK", "0\r\n\r\n"], &[]), ..case("no chunks", get, chunked_response(&[], &[])) },
        Case {
            acts: closing("HTTP/1.1 200 OK\r\n\r\nhello"),
            seen: (&["chunked", "hello", "0\r\n\r\n"], &[]),
            ..case("until it closes", get, "")
        },
        Case {
            acts: closing("HTTP/1.0 200 OK\r\n\r\nhello"),
            seen: (&["HTTP/1.1 200", "chunked", "1.0 portcullis", "hello"], &[]),
            ..case("HTTP/1.0 until it closes", get, "")
        },
        Case {
            acts: closing("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
            seen: (&["HTTP/1.1 200", "Content-Length: 5", "1.0 portcullis", "hello"], &[]),
            ..case("HTTP/1.0 with a length", get, "")
        },
        Case {
            seen: (&["103 Early Hints", "</a>", "200 OK", "hello"], &[]),
            ..case(
                "103",
                get,
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            )
        },
        Case {
            acts: closing("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf."),
            seen: (&["Content-Length: 10", "half."], &[]),
            ..case("half a body", get, "")
        },
        Case {
            acts: closing("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf.\r\n"),
            seen: (&["chunked", "half."], &[]),
            ..case("half a body in chunks", get, "")
        },
    ]
}

fn with_a_body() -> Vec<Case> {
    let (post, five) = ("POST /a HTTP/1.1", "Content-Length: 5\r\n");
    vec![
        Case {
            request: (post, five),
            body: Sends::AtOnce("whole"),
            seen: (&["200", "done"], &["Content-Length: 5", "whole"]),
            ..case("POST", post, response(200, &[], "done"))
        },
        Case {
            request: (post, "Content-Length: 5\r\nExpect: 100-continue\r\n"),
            body: Sends::Later("whole"),
            acts: vec![
                Act::Write("HTTP/1.1 100 Continue\r\n\r\n".into()),
                Act::ReadBody,
                Act::Write(response(200, &[], "done")),
            ],
            seen: (&["100 Continue", "200", "done"], &["Content-Length: 5", "whole"]),
            ..case("100-continue", post, "")
        },
        Case {
            request: (post, five),
            body: Sends::Never,
            acts: vec![Act::Write(response(413, &[], "too much")), Act::Hang],
            seen: (&["413", "too much"], &["Content-Length: 5"]),
            ..case("an early answer", post, "")
        },
    ]
}

/// What the client got and what the backend got.
async fn play(case: &Case, is_direct: bool) -> [String; 2] {
    let backend = Backend::scripted(Script::each([case.acts.clone()]));
    let lb = Lb::with_backends([&backend]).yaml_route("retry: { attempts: 1 }").start().await;
    let (line, fields) = case.request;
    let line = if line.is_empty() { "GET / HTTP/1.1" } else { line };
    let way = if is_direct { "" } else { "Connection: x-none\r\n" };
    let mut client = lb.raw().await;
    client.send(format!("{line}\r\nHost: a.example\r\n{fields}{way}\r\n")).await;
    let mut answers = Vec::new();
    if let Sends::AtOnce(body) = case.body {
        client.send(body).await;
    }
    loop {
        if case.name.starts_with("half") {
            // Cut off, in whatever way: what came before counts.
            while let Ok(some) = client.read_some().await
                && !some.is_empty()
            {
                answers.extend_from_slice(&some);
            }
            break;
        }
        let body = if line.starts_with("HEAD") { Framing::None } else { Framing::UntilClose };
        let answer = in_time(case.name, client.try_read_response(body)).await.unwrap();
        answers.extend_from_slice(&answer.raw);
        if let Sends::Later(body) = case.body
            && answer.status == 100
        {
            client.send(body).await;
        }
        if answer.status >= 200 {
            break;
        }
    }
    drop(client);
    lb.until_idle().await;
    let received = backend.only_request();
    [plain(&String::from_utf8_lossy(&answers)), plain(&received.text())]
}

/// Without what is another each time.
fn plain(text: &str) -> String {
    let is_another = |line: &str| {
        let line = line.to_ascii_lowercase();
        ["date:", "x-request-id:", "x-forwarded-port:"].iter().any(|name| line.starts_with(name))
    };
    text.split_inclusive("\r\n").filter(|line| !is_another(line)).collect()
}

#[tokio::test]
async fn both_ways_to_a_backend_and_back_are_the_same_byte_for_byte() {
    let mut wrong = Vec::new();
    for case in without_a_body().into_iter().chain(with_a_body()) {
        let [direct, own] = [play(&case, true).await, play(&case, false).await];
        let (answered, asked) = case.seen;
        for (what, wanted, [direct, own]) in
            [("answer", answered, [&direct[0], &own[0]]), ("request", asked, [&direct[1], &own[1]])]
        {
            if direct != own {
                wrong.push(format!("{}: the {what} on the direct way:\n{direct}\nand on Pingora's:\n{own}", case.name));
            }
            let missing = wanted.iter().filter(|part| !direct.contains(**part)).collect::<Vec<_>>();
            if !missing.is_empty() {
                wrong.push(format!("{}: the {what} lacks {missing:?}:\n{direct}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
