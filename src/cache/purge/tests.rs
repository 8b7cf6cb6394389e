//! What operators write, and what is meant by it.

use proptest::prelude::*;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn read(query: &str) -> Result<Purge, BadPurge> {
    Purge::read(query, b"", NOW)
}

#[track_caller]
fn meant(query: &str, url: &str) -> bool {
    read(query).unwrap().matches(url.as_bytes(), &["red".into(), "blue".into()])
}

#[test]
fn an_address_is_meant_as_an_operator_writes_it() {
    for url in [
        "https://example.com/a?b=1",
        "HTTPS://Example.COM:443/a?b=1",
        "example.com/a?b=1",
        "example.com:443/a?b=1",
        "https://example.com/a?b=1%23part",
        " https://example.com/a?b=1",
    ] {
        assert!(meant(&format!("url={url}"), "https://example.com/a?b=1"), "{url}");
    }
    for url in ["http://example.com/a?b=1", "https://example.com/a", "https://example.com:80/a?b=1", "example.com/A"] {
        assert!(!meant(&format!("url={url}"), "https://example.com/a?b=1"), "{url}");
    }
    assert!(meant("url=example.com", "http://example.com/") && meant("url=a?x", "https://a/?x"));
    assert!(meant("url=https://a/grün und blau", "https://a/gr%C3%BCn%20und%20blau"));
    assert!(meant("url=https://[2001:DB8::1]:8443/", "https://[2001:db8::1]:8443/"));
    assert!(meant("url=http%3A%2F%2Fa%2F%3Fx%3D1%26y=2%2b+3", "http://a/?x=1&y=2++3"));
}

#[test]
fn a_prefix_means_what_begins_so() {
    for (prefix, url, expected) in [
        ("https://a/shoes/", "https://a/shoes/1?size=9", true),
        ("A/shoes/", "http://a/shoes/1", true),
        ("a", "http://a/x", true),
        ("a", "http://ab/x", false),
        ("a:8080/", "http://a:8080/x", true),
        ("https://a/shoes/", "https://a/shoes", false),
    ] {
        assert_eq!(meant(&format!("prefix={prefix}"), url), expected, "{prefix} {url}");
    }
}

#[test]
fn a_host_means_all_its_ports_and_one_with_a_port_that_one() {
    for (host, url, expected) in [
        ("Example.com", "https://example.com/", true),
        ("example.com", "http://example.com:8080/x", true),
        ("example.com", "http://www.example.com/", false),
        ("example.com:443", "https://example.com/", true),
        ("example.com:443", "https://example.com:8443/", false),
        ("[::1]", "http://[::1]:80/", true),
        ("[::1]", "http://[::1]/", true),
    ] {
        assert_eq!(meant(&format!("host={host}"), url), expected, "{host} {url}");
    }
}

#[test]
fn tags_and_everything_are_meant_whatever_the_address() {
    assert!(meant("tag=red", "x") && !meant("tag=re", "x") && !meant("tag=RED", "x") && meant("all=true", "x"));
}

#[test]
fn a_body_says_the_same_as_a_query() {
    let expected = Purge { what: What::Tag("red".into()), soft: true, at: NOW };
    assert_eq!(read("tag=red&soft=true").as_ref(), Ok(&expected));
    assert_eq!(Purge::read("", br#" {"tag": "red", "soft": true} "#, NOW).as_ref(), Ok(&expected));
    assert_eq!(Purge::read("soft=1", b"tag=red", NOW).as_ref(), Ok(&expected));
    assert_eq!(read("tag=red&soft=false").unwrap().depth(), Depth::Hard);
    assert_eq!(expected.depth(), Depth::Soft(NOW));
}

#[test]
fn what_may_mean_more_or_less_than_was_meant_is_refused_with_help() {
    for (query, help) in [
        ("", "say what to purge"),
        ("soft=true", "say what to purge"),
        ("prefix=", "everything is purged by all=true"),
        ("url=%20", "is empty"),
        ("url=/a", "url=https://HOST/PATH"),
        ("prefix=/", "prefix=https://HOST/PATH"),
        ("prefix=https://", "names no host"),
        ("prefix=?x", "names no host"),
        ("url=https://:443/", "names no host"),
        ("url=a:b/", "names no host"),
        ("url=me@a/", "names no host"),
        ("url=ftp://a/", "neither http"),
        ("host=a/b", "more than a host"),
        ("tag=a b", "a space"),
        ("url=https://a/?x=1&y=2", "%26"),
        ("url=a&host=b", "one purge means one thing"),
        ("url=a&url=b", "one purge means one thing"),
        ("all", "neither true nor false"),
        ("all=false", "purges nothing"),
        ("all=true&soft=yes", "neither true nor false"),
        ("url=%f", "percent"),
        ("url=%+1", "percent"),
        ("url=%ff", "percent"),
    ] {
        let error = read(query).unwrap_err().to_string();
        assert!(error.contains(help) && !error.contains('\n'), "{query}: {error}");
    }
    for body in [&b"{"[..], b"{\"url\": 1}", b"[]", b"\xff", b"{\"url\": [\"a\"]}"] {
        assert!(Purge::read("", body, NOW).is_err(), "{body:?}");
    }
    assert_eq!(read(&format!("tag={}", "x".repeat(LENGTH_MAX + 1))), Err(BadPurge::TooLong("tag")));
}

proptest! {
    #[test]
    fn nothing_but_all_means_an_address_of_another_host(query in "(url|prefix|host)=[a-cA-C:/?.%0-9\\[\\]@ ]{0,12}") {
        if let Ok(purge) = read(&query) {
            prop_assert!(!purge.matches(b"https://other.example/", &[]), "{query}");
        }
    }
}
