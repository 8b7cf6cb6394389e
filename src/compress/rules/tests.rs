//! Pairs of heads, and what is to be done with them.

use super::*;
use crate::config::{Levels, MediaRange};

type Fields<'a> = &'a [(&'static str, &'a str)];

fn compress() -> Compress {
    Compress {
        algorithms: vec![Coding::Zstd, Coding::Gzip],
        min_size: 1000,
        types: vec![MediaRange::Type("text/".into()), MediaRange::Suffix("+json".into())],
        levels: Levels::default(),
        decode: true,
        decode_requests: false,
        max_cpu: None,
    }
}

fn request(fields: Fields<'_>) -> RequestHeader {
    let mut head = RequestHeader::build("GET", b"/", None).unwrap();
    fields.iter().for_each(|(name, value)| assert!(head.append_header(*name, *value).is_ok()));
    head
}

fn response(status: u16, fields: Fields<'_>) -> ResponseHeader {
    let mut head = ResponseHeader::build(status, None).unwrap();
    fields.iter().for_each(|(name, value)| assert!(head.append_header(*name, *value).is_ok()));
    head
}

fn verdict(request: &RequestHeader, response: &ResponseHeader, compress: &Compress) -> Verdict {
    judge(request, &Accepted::of(&request.headers), response, compress)
}

/// A request that takes gzip, and a 200 with these fields.
#[track_caller]
fn check(fields: Fields<'_>, expected: Verdict) {
    check_status(200, fields, expected);
}

#[track_caller]
fn check_status(status: u16, fields: Fields<'_>, expected: Verdict) {
    let request = request(&[("accept-encoding", "gzip")]);
    assert_eq!(verdict(&request, &response(status, fields), &compress()), expected, "{status} {fields:?}");
}

const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
const LONG: (&str, &str) = ("content-length", "1000");

#[test]
fn what_is_large_and_of_the_right_type_is_worth_it() {
    check(&[HTML, LONG], Verdict::Eligible);
    check(&[HTML], Verdict::Eligible);
    check(&[("content-type", "application/problem+json"), LONG], Verdict::Eligible);
    check(&[HTML, ("content-length", "many")], Verdict::Eligible);
    check(&[HTML, ("content-encoding", "identity")], Verdict::Eligible);
    check(&[HTML, ("content-encoding", "")], Verdict::Eligible);
    check(&[HTML, ("cache-control", "no-store, private=\"a\", max-age=1")], Verdict::Eligible);
    check(&[("content-type", "text/event-stream")], Verdict::Eligible);
}

#[test]
fn it_is_worth_it_whatever_the_client_reads() {
    for line in ["", "identity", "br", "gzip;q=0"] {
        let asked = request(&[("accept-encoding", line)]);
        assert_eq!(verdict(&asked, &response(200, &[HTML, LONG]), &compress()), Verdict::Eligible, "{line:?}");
    }
}

#[test]
fn errors_and_redirects_with_a_body_are_worth_it_too() {
    for status in [201, 203, 301, 404, 410, 500, 503] {
        check_status(status, &[HTML, LONG], Verdict::Eligible);
    }
}

#[test]
fn what_has_no_whole_body_is_left_as_it_is() {
    for status in [100, 101, 103, 204, 205, 206] {
        check_status(status, &[HTML, LONG], Verdict::Untouched(Why::Status));
    }
    check_status(200, &[HTML, ("content-range", "bytes 0-9/10")], Verdict::Untouched(Why::Part));
    check_status(416, &[HTML, ("content-range", "bytes */10")], Verdict::Untouched(Why::Part));
    check(&[HTML, ("content-length", "0")], Verdict::Untouched(Why::Empty));
    check(&[HTML, ("content-length", "0"), ("content-encoding", "br")], Verdict::Untouched(Why::Empty));
}

#[test]
fn what_is_small_or_of_another_type_is_left_as_it_is() {
    check(&[HTML, ("content-length", "999")], Verdict::Untouched(Why::Small));
    check(&[("content-type", "image/png"), LONG], Verdict::Untouched(Why::Type));
    check(&[LONG], Verdict::Untouched(Why::NoType));
    check(&[("content-type", "html"), LONG], Verdict::Untouched(Why::NoType));
}

#[test]
fn what_must_not_be_touched_is_not_even_decoded() {
    let cases: [((&str, &str), Why); 8] = [
        (("cache-control", "no-transform"), Why::NoTransform),
        (("cache-control", "public, No-Transform , max-age=1"), Why::NoTransform),
        (("trailer", "x-checksum"), Why::Trailer),
        (("content-type", "application/grpc"), Why::Grpc),
        (("content-type", "application/grpc-web+proto"), Why::Grpc),
        (("content-range", "bytes 0-9/10"), Why::Part),
        (("content-encoding", "br, gzip"), Why::Unknown),
        (("content-encoding", "compress"), Why::Unknown),
    ];
    for (field, why) in cases {
        check(&[field, ("content-length", "5000")], Verdict::Untouched(why));
        if field.0 != "content-encoding" {
            check(&[field, ("content-encoding", "br")], Verdict::Untouched(why));
        }
    }
}

#[test]
fn a_client_may_forbid_it() {
    let asked =
        request(&[("accept-encoding", "gzip"), ("cache-control", "max-age=0"), ("cache-control", "no-transform")]);
    assert_eq!(verdict(&asked, &response(200, &[HTML, LONG]), &compress()), Verdict::Untouched(Why::NoTransform));
}

#[test]
fn an_http_1_0_client_gets_what_the_backend_sent() {
    let mut asked = request(&[("accept-encoding", "gzip")]);
    asked.set_version(Version::HTTP_10);
    assert_eq!(verdict(&asked, &response(200, &[HTML, LONG]), &compress()), Verdict::Untouched(Why::OldClient));
    asked.set_version(Version::HTTP_2);
    assert_eq!(verdict(&asked, &response(200, &[HTML, LONG]), &compress()), Verdict::Eligible);
}

#[test]
fn head_is_judged_as_get_and_a_tunnel_is_nothing_to_judge() {
    let mut asked = request(&[("accept-encoding", "gzip")]);
    asked.set_method(Method::HEAD);
    assert_eq!(verdict(&asked, &response(200, &[HTML, LONG]), &compress()), Verdict::Eligible);
    asked.set_method(Method::CONNECT);
    assert_eq!(verdict(&asked, &response(200, &[HTML]), &compress()), Verdict::Untouched(Why::Status));
}

#[test]
fn what_the_client_cannot_read_is_decoded_whatever_its_type_and_size() {
    let png = ("content-type", "image/png");
    check(&[HTML, ("content-encoding", "br")], Verdict::Decode(Coding::Br));
    check(&[png, ("content-length", "3"), ("content-encoding", "ZSTD")], Verdict::Decode(Coding::Zstd));
    check(&[("content-encoding", "identity, deflate,")], Verdict::Decode(Coding::Deflate));
    check(&[HTML, ("content-encoding", "gzip")], Verdict::Readable(Coding::Gzip));
    check(&[HTML, ("content-encoding", "x-gzip")], Verdict::Readable(Coding::Gzip));
    let silent = request(&[]);
    let gzipped = response(200, &[HTML, ("content-encoding", "x-gzip")]);
    assert_eq!(verdict(&silent, &gzipped, &compress()), Verdict::Decode(Coding::Gzip));
}

#[test]
fn nothing_is_decoded_where_that_is_switched_off() {
    let plain = Compress { decode: false, ..compress() };
    for asked in [request(&[]), request(&[("accept-encoding", "gzip, br")])] {
        let coded = response(200, &[HTML, ("content-encoding", "br")]);
        assert_eq!(verdict(&asked, &coded, &plain), Verdict::Untouched(Why::Encoded));
    }
}

#[test]
fn a_304_is_weak_for_who_has_had_the_weak_tag_or_may_have() {
    let cases: [(Fields<'_>, bool); 12] = [
        (&[("accept-encoding", "gzip")], true),
        (&[("accept-encoding", "gzip"), ("if-none-match", "\"a\"")], false),
        (&[("accept-encoding", "gzip"), ("if-none-match", "\"a\", W/\"a\"")], true),
        (&[("accept-encoding", "gzip"), ("if-none-match", "*")], true),
        (&[("accept-encoding", "br"), ("if-none-match", "\"a\"")], false),
        (&[("if-none-match", "\"a\"")], false),
        (&[("if-none-match", "W/\"a\"")], true),
        (&[("if-none-match", "\"b\", W/\"a\"")], true),
        (&[("if-none-match", "\"b\""), ("if-none-match", "W/\"a\"")], true),
        (&[("if-none-match", "W/\"a\", \"a\"")], false),
        (&[("if-none-match", "W/\"b\"")], false),
        (&[("if-none-match", "*")], false),
    ];
    for (fields, weak) in cases {
        let verdict = verdict(&request(fields), &response(304, &[("etag", "\"a\"")]), &compress());
        assert_eq!(verdict, Verdict::NotModified { weak }, "{fields:?}");
    }
    check_status(304, &[("cache-control", "no-transform")], Verdict::Untouched(Why::NoTransform));
}

#[test]
fn a_request_is_decoded_only_where_that_is_asked_for_and_does_no_harm() {
    let asked = Compress { decode_requests: true, ..compress() };
    let coded = ("content-encoding", "gzip");
    assert_eq!(judge_request(&request(&[coded]), &asked), Some(Coding::Gzip));
    assert_eq!(judge_request(&request(&[coded]), &compress()), None);
    let left: [Fields<'_>; 8] = [
        &[],
        &[("content-encoding", "gzip, br")],
        &[("content-encoding", "aws-chunked")],
        &[coded, ("cache-control", "no-transform")],
        &[coded, ("content-range", "bytes 0-9/10")],
        &[coded, ("content-type", "application/grpc")],
        &[coded, ("trailer", "x-sum")],
        &[coded, ("content-length", "0")],
    ];
    left.iter().for_each(|fields| assert_eq!(judge_request(&request(fields), &asked), None, "{fields:?}"));
    let mut old = request(&[coded]);
    old.set_version(Version::HTTP_10);
    assert_eq!(judge_request(&old, &asked), None);
}
