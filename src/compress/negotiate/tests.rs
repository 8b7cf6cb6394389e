//! Accept-Encoding as clients write it, well and badly.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const OFFERED: [Coding; 4] = [Coding::Zstd, Coding::Br, Coding::Gzip, Coding::Deflate];

fn accepted<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Accepted {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(ACCEPT_ENCODING, HeaderValue::from_bytes(line).unwrap());
    }
    Accepted::of(&headers)
}

/// What is sent where all four are offered, and whether gzip is where it is offered alone.
#[track_caller]
fn check(line: &str, all: Option<Coding>, gzip_only: bool) {
    let accepted = accepted([line.as_bytes()]);
    assert_eq!(accepted.best(&OFFERED), all, "{line:?}");
    assert_eq!(accepted.best(&[Coding::Gzip]), gzip_only.then_some(Coding::Gzip), "{line:?} with gzip alone");
}

const ZSTD: Option<Coding> = Some(Coding::Zstd);
const BR: Option<Coding> = Some(Coding::Br);
const GZIP: Option<Coding> = Some(Coding::Gzip);
const DEFLATE: Option<Coding> = Some(Coding::Deflate);

#[test]
fn what_clients_really_send_gets_the_first_that_is_offered() {
    let clients = [
        ("gzip, deflate, br, zstd", ZSTD, true), // Chromium and Firefox on https
        ("gzip, deflate", GZIP, true),           // browsers on http, Python's requests
        ("gzip, deflate, br", BR, true),         // Safari, curl --compressed with brotli
        ("deflate, gzip, br, zstd", ZSTD, true), // curl --compressed
        ("gzip", GZIP, true),                    // Go's net/http
        ("br, gzip, deflate", BR, true),         // Node's undici
        ("identity", None, false),               // wget
        ("identity, *;q=0", None, false),        // media players that want ranges
        ("identity;q=1, *;q=0", None, false),    // Chromium's <video>
        ("gzip;q=1.0,deflate;q=0.6,identity;q=0.3", GZIP, true), // Ruby's Net::HTTP
        ("gzip;q=1.0, deflate;q=0.6, identity;q=0.3", GZIP, true),
        ("gzip,deflate,sdch", GZIP, true), // Chromium of old
        ("gzip, deflate, br, dcb, dcz, zstd", ZSTD, true),
        ("gzip, x-gzip, deflate", GZIP, true),
        ("*", ZSTD, true),
        ("", None, false),
        ("gzip;q=1.0, identity; q=0.5, *;q=0", GZIP, true), // RFC 9110's examples
        ("compress, gzip", GZIP, true),
        ("compress;q=0.5, gzip;q=1.0", GZIP, true),
    ];
    clients.into_iter().for_each(|(line, all, gzip)| check(line, all, gzip));
}

#[test]
fn the_highest_weight_wins_whatever_is_offered_first() {
    let weights = [
        ("br;q=0.001, gzip;q=1.000", GZIP, true),
        ("gzip;q=0.9, br;q=0.8, zstd;q=0.7", GZIP, true),
        ("gzip;q=0.8, br;q=0.9", BR, true),
        ("deflate, gzip;q=0.999", DEFLATE, true),
        ("zstd;q=0.5, br;q=0.5, gzip;q=0.5", ZSTD, true),
        ("gzip;q=0.5, br;q=0.50, zstd;q=0.500", ZSTD, true),
        ("br;q=0.1, *;q=0.5", ZSTD, true),
        ("zstd, *;q=0.1", ZSTD, true),
        ("zstd;q=0.1, *;q=0.5", BR, true),
        ("zstd;q=0, br;q=0, *", GZIP, true),
        ("gzip;q=0.001", GZIP, true),
        ("gzip;q=1.", GZIP, true),
        ("gzip;q=0.5, *;q=0", GZIP, true),
    ];
    weights.into_iter().for_each(|(line, all, gzip)| check(line, all, gzip));
}

#[test]
fn what_is_refused_is_not_sent() {
    let refused = [
        ("*;q=0", None, false),
        ("gzip;q=0", None, false),
        ("gzip;q=0.0", None, false),
        ("gzip;q=0.", None, false),
        ("gzip;q=0.000", None, false),
        ("gzip;q=0, *", ZSTD, false),
        ("gzip;q=0, br;q=0, zstd;q=0, deflate;q=0, *", None, false),
        ("*;q=0, gzip", GZIP, true),
        ("x-gzip;q=0, *;q=1", ZSTD, false),
        ("gzip;q=0, gzip", None, false),
        ("gzip, gzip;q=0", None, false),
        ("gzip, x-gzip;q=0", None, false),
        ("br;q=0.2, br, gzip;q=0.3", GZIP, true),
        ("*, *;q=0", None, false),
    ];
    refused.into_iter().for_each(|(line, all, gzip)| check(line, all, gzip));
}

#[test]
fn identity_wins_only_if_it_is_liked_better_by_name() {
    let cases = [
        ("identity, gzip;q=0.5", None, false),
        ("identity;q=0.6, gzip;q=0.5", None, false),
        ("identity;q=0.5, gzip;q=0.5", GZIP, true),
        ("identity, gzip", GZIP, true),
        ("identity, *;q=0.5", None, false),
        ("identity;q=0.5, *;q=0.5", ZSTD, true),
        ("gzip;q=0.5, *", ZSTD, true),
        ("identity;q=0.7, gzip;q=0.5, br", BR, false),
        ("identity;q=0", None, false),
        ("identity;q=0, *;q=0", None, false),
        ("identity;q=0, gzip;q=0.1", GZIP, true),
        ("IDENTITY, gzip;q=0.9", None, false),
        ("identity, identity;q=0.1, gzip;q=0.5", GZIP, true),
        ("identity;q=bad, gzip;q=0.5", GZIP, true),
    ];
    cases.into_iter().for_each(|(line, all, gzip)| check(line, all, gzip));
}

#[test]
fn case_space_and_old_names_make_no_difference() {
    let cases = [
        ("GZIP", GZIP, true),
        ("GzIp;Q=0.5", GZIP, true),
        ("x-gzip", GZIP, true),
        ("X-GZIP;q=0.1", GZIP, true),
        ("gzip ; q=0.5", GZIP, true),
        ("\tgzip\t;\tq=0.5\t", GZIP, true),
        ("gzip;q=0.5;", GZIP, true),
        ("gzip;", GZIP, true),
        (",,gzip,,", GZIP, true),
        (" , \t, gzip", GZIP, true),
        ("Br,ZSTD;q=0.2", BR, false),
    ];
    cases.into_iter().for_each(|(line, all, gzip)| check(line, all, gzip));
}

#[test]
fn a_member_that_cannot_be_read_is_not_wanted() {
    let cases = [
        ("gzip;q=1.5", None, false),
        ("gzip;q=1.001", None, false),
        ("gzip;q=-1", None, false),
        ("gzip;q=+1", None, false),
        ("gzip;q=2", None, false),
        ("gzip;q=10", None, false),
        ("gzip;q=0.1234", None, false),
        ("gzip;q=.5", None, false),
        ("gzip;q=0,5", None, false),
        ("gzip;q=", None, false),
        ("gzip;q", None, false),
        ("gzip;q=\"0.5\"", None, false),
        ("gzip;q=one", None, false),
        ("gzip;q=0x1", None, false),
        ("gzip;q=1e0", None, false),
        ("gzip;q=NaN", None, false),
        ("gzip;q=\u{661}", None, false),
        // A space around `=` is in no grammar; it is somebody's weight all the same, and not one to be passed over.
        ("gzip ; q = 0.5", None, false),
        ("gzip;q =0", None, false),
        ("gzip;q=0.5;q=0.6", None, false),
        ("gzip;q=1.5, *", ZSTD, false),
        ("gzip;q=1.5, br", BR, false),
        ("gzip;level=9", GZIP, true),
        ("gzip;level=9;q=0", None, false),
        ("gzip;q=0.5;level=9", GZIP, true),
        ("gzip br", None, false),
        ("gzip\tbr", None, false),
        ("gzip/1.0", None, false),
        ("\"gzip\"", None, false),
        ("gzipp", None, false),
        ("gz", None, false),
        ("brotli", None, false),
        ("zstandard", None, false),
        ("gzip\u{a0}", None, false),
        ("\u{ff47}zip", None, false),
        ("*/*", None, false),
        ("**", None, false),
        ("*;q=2", None, false),
        (";q=1", None, false),
        ("=;=;=,;;;,q=1", None, false),
    ];
    cases.into_iter().for_each(|(line, all, gzip)| check(line, all, gzip));
}

#[test]
fn several_lines_are_one_list() {
    let lines = accepted([b"br;q=0.5".as_slice(), b"", b"gzip;q=0.9, zstd;q=0"]);
    assert_eq!(lines, accepted([b"br;q=0.5, gzip;q=0.9, zstd;q=0".as_slice()]));
    assert_eq!(lines.best(&OFFERED), GZIP);
}

#[test]
fn only_what_is_offered_is_sent() {
    let all = accepted([b"gzip, br, zstd, deflate".as_slice()]);
    assert_eq!(all.best(&[]), None);
    assert_eq!(all.best(&[Coding::Deflate, Coding::Gzip]), DEFLATE);
    assert_eq!(all.best(&[Coding::Gzip, Coding::Deflate]), GZIP);
}

#[test]
fn a_client_that_says_nothing_reads_no_coding() {
    let silent = accepted([]);
    assert_eq!(silent.best(&OFFERED), None);
    assert!(OFFERED.iter().all(|coding| !silent.reads(*coding)));
}

#[test]
fn what_is_read_does_not_hang_on_what_is_said_of_identity() {
    let cases = [
        ("", false),
        ("gzip", true),
        ("x-gzip;q=0.001", true),
        ("gzip;q=0", false),
        ("br", false),
        ("*", true),
        ("*;q=0", false),
        ("*;q=0, identity", false),
        ("*;q=0, identity;q=0.1, gzip", true),
        ("identity;q=0", false),
        ("identity;q=0, gzip", true),
        ("identity;q=0.5, *;q=0", false),
        ("identity;q=0, *", true),
        ("identity, gzip;q=0.1", true),
        ("identity;q=nothing", false),
    ];
    for (line, gzip) in cases {
        let accepted = accepted([line.as_bytes()]);
        assert_eq!(accepted.reads(Coding::Gzip), gzip, "{line:?}");
    }
}

#[test]
fn what_is_meant_to_wear_us_out_is_read_in_one_pass() {
    let many = |member: &str| member.repeat(100 * 1024 / member.len());
    for member in [",", ";", "=", "gzip,", "gzip;q=1;", "x;q=0.5,", "*,", "identity,", "\u{e9}", ";q=1", "q=q=q=", " "]
    {
        let best = accepted([many(member).as_bytes()]).best(&OFFERED);
        assert!(best.is_none() || matches!(member, "gzip," | "*,"), "{member:?} {best:?}");
    }
    let members: Vec<String> = (0..10_000).map(|number| format!("c{number};q=0.{}", number % 1000)).collect();
    assert_eq!(accepted([format!("{}, br", members.join(",")).as_bytes()]).best(&OFFERED), BR);
}

const NAMES: &[&str] = &["gzip", "x-gzip", "br", "zstd", "deflate", "identity", "*", "sdch", ""];
const WEIGHTS: &[&str] = &["", ";q=0", ";q=0.0", ";q=0.001", ";q=0.5", ";q=1", ";q=7", ";q=", ";x=1", " ; q=0.3"];

fn member() -> impl Strategy<Value = String> {
    let parts = (prop::sample::select(NAMES), prop::sample::select(WEIGHTS));
    parts.prop_map(|(name, weight)| format!("{name}{weight}"))
}

proptest! {
    #[test]
    fn what_is_chosen_was_offered_is_read_and_is_liked_at_least_as_much_as_all_else(
        members in prop::collection::vec(member(), 0..12),
        offered in prop::sample::subsequence(OFFERED.to_vec(), 0..=4).prop_shuffle(),
    ) {
        let accepted = accepted([members.join(",").as_bytes()]);
        match accepted.best(&offered) {
            Some(chosen) => {
                prop_assert!(offered.contains(&chosen) && accepted.reads(chosen));
                let weights = offered.iter().map(|coding| accepted.weight(*coding));
                prop_assert!(weights.clone().all(|weight| weight <= accepted.weight(chosen)));
                prop_assert!(accepted.identity.is_none_or(|weight| weight <= accepted.weight(chosen)));
            }
            None => {
                let read = offered.iter().filter(|coding| accepted.reads(**coding));
                prop_assert!(read.clone().all(|coding| accepted.identity > Some(accepted.weight(*coding))));
            }
        }
    }

    #[test]
    fn no_field_makes_it_panic(lines in prop::collection::vec(prop::collection::vec(b' '..=b'~', 0..60), 0..4)) {
        let accepted = accepted(lines.iter().map(Vec::as_slice));
        prop_assert!(accepted.best(&OFFERED).is_none_or(|coding| accepted.reads(coding)));
    }

    #[test]
    fn no_bytes_beyond_ascii_make_it_panic(
        line in prop::collection::vec(prop_oneof![Just(b'\t'), 0x20..=0x7e_u8, 0x80..=0xff_u8], 0..80),
    ) {
        let accepted = accepted([line.as_slice()]);
        prop_assert!(accepted.best(&OFFERED).is_none_or(|coding| accepted.reads(coding)));
    }
}
