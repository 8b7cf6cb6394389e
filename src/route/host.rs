//! Which host does a request mean? One spelling for each host: lower case, without port and trailing dot.
//!
//! A Host field is what RFC 9110 section 7.2 and RFC 3986 section 3.2.2 allow, and a little less: no comma, which would
//! make two hosts of one to some readers, and no escapes, which would give one host two spellings.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// The longest name that the DNS can hold, as text.
const LONGEST: usize = 253;

/// Why a Host field names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing is left of it.
    #[error("the host is empty")]
    Empty,
    /// It is longer than any name.
    #[error("the host is longer than 253 bytes")]
    TooLong,
    /// A byte that stands in no host: a space, a comma, `@`, `/`, or anything that is not ASCII.
    #[error("the host has a byte that stands in no host")]
    BadByte,
    /// Two dots with nothing between them, or a dot in front.
    #[error("the host has an empty label")]
    EmptyLabel,
    /// Brackets with something else than an IPv6 address in them.
    #[error("the host has brackets without an IPv6 address")]
    BadAddress,
    /// A port that is not a number up to 65535.
    #[error("the port is not a number up to 65535")]
    BadPort,
}

/// The one spelling of the host in a Host field; borrowed if it has that already.
///
/// ```
/// use portcullis::route::host::normalise;
/// assert_eq!(normalise("WWW.Example.com.:8443")?, "www.example.com");
/// # Ok::<(), portcullis::route::host::HostError>(())
/// ```
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, HostError> {
    if let Some(rest) = raw.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(HostError::BadAddress)?;
        check_port(after)?;
        return normalise_v6(raw, address);
    }
    let (name, after) = raw.split_at(raw.find(':').unwrap_or(raw.len()));
    check_port(after)?;
    normalise_name(name)
}

/// What follows the host: nothing, or a colon and digits, of which there may be none (RFC 3986 section 3.2.3).
fn check_port(after: &str) -> Result<(), HostError> {
    let Some(port) = after.strip_prefix(':') else {
        return if after.is_empty() { Ok(()) } else { Err(HostError::BadPort) };
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let fits = port.is_empty() || port.parse::<u16>().is_ok();
    if digits && fits { Ok(()) } else { Err(HostError::BadPort) }
}

fn normalise_v6<'a>(raw: &'a str, address: &str) -> Result<Cow<'a, str>, HostError> {
    let address: Ipv6Addr = address.parse().map_err(|_| HostError::BadAddress)?;
    let host = format!("[{address}]");
    match raw.get(..host.len()) {
        Some(same) if same == host => Ok(Cow::Borrowed(same)),
        Some(_) | None => Ok(Cow::Owned(host)),
    }
}

fn normalise_name(name: &str) -> Result<Cow<'_, str>, HostError> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > LONGEST {
        return Err(HostError::TooLong);
    }
    if !name.bytes().all(may_stand_in_name) {
        return Err(HostError::BadByte);
    }
    if name.starts_with('.') || name.ends_with('.') || name.as_bytes().windows(2).any(|pair| pair == b"..") {
        return Err(HostError::EmptyLabel);
    }
    let upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
    Ok(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// `unreserved` and `sub-delims` of RFC 3986, without the comma.
fn may_stand_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(raw: &str, normal: &str) {
        assert_eq!(normalise(raw).as_deref(), Ok(normal), "{raw}");
    }

    #[test]
    fn case_port_and_trailing_dot_make_no_difference() {
        check("example.com", "example.com");
        check("EXAMPLE.com:443", "example.com");
        check("example.com.", "example.com");
        check("example.com.:80", "example.com");
        check("example.com:", "example.com");
        check("127.0.0.1:8080", "127.0.0.1");
        check("my_service", "my_service");
    }

    #[test]
    fn an_ipv6_address_has_one_spelling() {
        check("[::1]", "[::1]");
        check("[::1]:443", "[::1]");
        check("[0:0:0:0:0:0:0:1]", "[::1]");
        check("[2001:DB8::A]:1", "[2001:db8::a]");
    }

    #[test]
    fn a_normal_host_is_borrowed() {
        for raw in ["example.com", "example.com:80", "[::1]:80"] {
            assert!(matches!(normalise(raw), Ok(Cow::Borrowed(_))), "{raw}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for (raw, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            (":80", HostError::Empty),
            ("a,b", HostError::BadByte),
            ("a b", HostError::BadByte),
            (" a", HostError::BadByte),
            ("user@a", HostError::BadByte),
            ("a/b", HostError::BadByte),
            ("%41.example", HostError::BadByte),
            ("b\u{fc}cher.example", HostError::BadByte),
            ("a..b", HostError::EmptyLabel),
            (".a", HostError::EmptyLabel),
            ("a..", HostError::EmptyLabel),
            ("user:secret@a", HostError::BadPort),
            ("a:65536", HostError::BadPort),
            ("a:+80", HostError::BadPort),
            ("a:80:80", HostError::BadPort),
            ("::1", HostError::BadPort),
            ("[::1", HostError::BadAddress),
            ("[::1%25eth0]", HostError::BadAddress),
            ("[v1.a]", HostError::BadAddress),
            ("[::1]a", HostError::BadPort),
        ] {
            assert_eq!(normalise(raw), Err(error), "{raw}");
        }
        assert_eq!(normalise(&"a".repeat(254)), Err(HostError::TooLong));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(raw in "[a-zA-Z0-9.:\\[\\]_-]{0,20}") {
            if let Ok(once) = normalise(&raw) {
                prop_assert_eq!(normalise(&once), Ok(Cow::Borrowed(&*once)));
            }
        }

        #[test]
        fn anything_at_all_is_answered(raw in ".*") {
            let _ = normalise(&raw);
        }
    }
}
