//! What are the values of the language that are more than text and numbers? Units, addresses, words, patterns.
//!
//! A text with a form of its own is decoded into the checked type at once, so its grammar stands in one place.

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::decode::{Decode, describe, refuse, scalar, written};
use crate::config::outline::Spelled;
use crate::config::problem::{Problems, Spot, suggest};
use crate::config::tree::{Kind, Node};
use crate::config::units::{self, UnitError};
use crate::config::{
    Address, CertificatePart, ClientAuthMode, Dashboard, Eviction, ForwardedBy, Http2, Protocol, ProxyProtocol,
    SameSite, TlsVersion, TraceFrom,
};
use crate::proxy_protocol::Version;

/// A duration of more than nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeout(pub(crate) Duration);

/// A size in bytes, of at least one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) u64);

/// A size in bytes that may be none at all. Nothing has no unit, so `0` may stand bare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeOrZero(pub(crate) u64);

/// Bytes a second, at least one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteRate(pub(crate) NonZeroU64);

/// A share of a whole, 1.0 for 100%.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share(pub(crate) f64);

/// A path as written; `check` joins it with the file's folder.
#[derive(Clone, Debug)]
pub(crate) struct FilePath(pub(crate) String);

/// A secret as it is written, or where it is. No message shows it.
#[derive(Clone)]
pub(crate) enum SecretText {
    Text(String),
    File(FilePath),
}

/// The name of a cookie.
#[derive(Clone, Debug)]
pub(crate) struct CookieName(pub(crate) String);

/// `auto` or a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads(pub(crate) Option<NonZeroUsize>);

/// `none`, `stdout` or a path.
#[derive(Clone, Debug)]
pub(crate) enum PathOr {
    None,
    Stdout,
    Path(FilePath),
}

/// A value with a unit, or a problem that says how to write one.
pub(super) fn with_unit<T>(
    node: &Node,
    at: &Spot,
    (wanted, help): (&str, &str),
    read: impl Fn(&str) -> Result<T, UnitError>,
    problems: &mut Problems,
) -> Option<T> {
    let scalar = scalar(node, at, wanted, help, problems)?;
    match read(&scalar.text) {
        Ok(value) => Some(value),
        Err(error) => {
            problems.error(at, error.to_string(), help);
            None
        }
    }
}

const DURATION: (&str, &str) = ("a duration", "write a whole number and ms, s, m, h or d: 250ms, 30s, 5m");
const SIZE: (&str, &str) = ("a size", "write a whole number and B, KiB, MiB or GiB: 64KiB, 8MiB");
const BYTE_RATE: (&str, &str) = ("bytes within a time", "write a size, `/` and a time: 1KiB/s, 300KiB/m");
const SHARE: (&str, &str) = ("a share", "write a whole number and %: 50%");

impl Decode for Duration {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        with_unit(node, at, DURATION, units::duration, problems)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d)|\\$\\{.*)$" })
    }
}

impl Decode for Timeout {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let duration = Duration::decode(node, at, problems)?;
        if duration.is_zero() {
            problems.error(
                at,
                "nothing is done in no time",
                "give it more than 0; a key that may be without a limit takes `none`",
            );
            return None;
        }
        Some(Self(duration))
    }

    fn schema() -> Json {
        Duration::schema()
    }
}

impl Decode for Size {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let size = with_unit(node, at, SIZE, units::size, problems)?;
        Some(Self(size))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+([KMG]i)?B|\\$\\{.*)$" })
    }
}

impl Decode for SizeOrZero {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        if written(node) == "0" {
            return Some(Self(0));
        }
        Size::decode(node, at, problems).map(|size| Self(size.0))
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": 0 }, Size::schema()] })
    }
}

impl Decode for ByteRate {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let rate = with_unit(node, at, BYTE_RATE, units::byte_rate, problems)?;
        let rate = NonZeroU64::new(rate).map(Self);
        rate.or_else(|| refuse(node, at, "at least 1B/s", "`none` is no limit", problems))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+([KMG]i)?B/[0-9]*(ms|s|m|h|d)|\\$\\{.*)$" })
    }
}

impl Decode for Share {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        with_unit(node, at, SHARE, units::share, problems).map(Self)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^([0-9]+%|\\$\\{.*)$" })
    }
}

impl Decode for FilePath {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let path = String::decode(node, at, problems)?;
        if path.is_empty() || path.contains('\0') {
            return refuse(
                node,
                at,
                "a path",
                "write the path of a file; a relative one starts at this file",
                problems,
            );
        }
        Some(Self(path))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Decode for SecretText {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let text = written(node);
        if text.trim().is_empty() {
            problems.error(at, "this must be a text", "write a text of 16 bytes or more, or file:PATH");
            return None;
        }
        match text.strip_prefix("file:") {
            Some("") => {
                problems.error(at, "`file:` names no file", "write file:PATH");
                None
            }
            Some(path) => Some(Self::File(FilePath(path.to_owned()))),
            None => Some(Self::Text(text.to_owned())),
        }
    }

    fn spell(node: &Node) -> Spelled {
        Spelled::hidden(node)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for CookieName {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let name = String::decode(node, at, problems)?;
        // A token, as a field's name is (RFC 6265, 4.1.1), but its case counts.
        if name.parse::<http::HeaderName>().is_err() {
            return refuse(node, at, "the name of a cookie", "write letters, digits, `-` and `_`", problems);
        }
        Some(Self(name))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for SameSite {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("`lax`, `strict` or `none`", "`lax` suits nearly every site");
        match scalar(node, at, wanted, help, problems)?.text.as_str() {
            "lax" => Some(Self::Lax),
            "strict" => Some(Self::Strict),
            "none" => Some(Self::None),
            _ => refuse(node, at, wanted, help, problems),
        }
    }

    fn schema() -> Json {
        json!({ "enum": ["lax", "strict", "none"] })
    }
}

impl Decode for Threads {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "`auto` or a number from 1 to 1024";
        let help = "`auto` starts one thread for each core";
        let scalar = scalar(node, at, wanted, help, problems)?;
        match scalar.text.parse::<NonZeroUsize>() {
            _ if scalar.text == "auto" => Some(Self(None)),
            Ok(count) if count.get() <= 1024 => Some(Self(Some(count))),
            Ok(_) | Err(_) => refuse(node, at, wanted, help, problems),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}

impl Decode for Address {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "an IP address with a port, or `unix:` and a path";
        let help = "write 0.0.0.0:8443, \"[::]:8443\" or unix:/run/portcullis.sock";
        let scalar = scalar(node, at, wanted, help, problems)?;
        if let Some(path) = scalar.text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Some(Self::Unix(PathBuf::from(path)));
        }
        match scalar.text.parse::<SocketAddr>() {
            Ok(address) => Some(Self::Tcp(address)),
            Err(_) => refuse(node, at, wanted, help, problems),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for IpNet {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write 10.0.0.0/8, \"fd00::/8\" or one address";
        let text = &scalar(node, at, "a network", help, problems)?.text;
        let net = text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into()));
        net.or_else(|| refuse(node, at, "a network", help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

/// Types that are one of a few words.
macro_rules! words {
    ($($type:ty { $($word:literal => $value:expr),* $(,)? })*) => { $(
        impl Decode for $type {
            fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
                const WORDS: &[&str] = &[$($word),*];
                let help = suggest(written(node), "values", WORDS.iter().copied());
                let scalar = scalar(node, at, "one word", &help, problems)?;
                match scalar.text.as_str() {
                    $($word => Some($value),)*
                    _ => {
                        problems.error(at, format!("{} is not one of the values", describe(node)), help);
                        None
                    }
                }
            }

            fn schema() -> Json {
                json!({ "enum": [$($word),*] })
            }
        }
    )* };
}

words! {
    ForwardedBy { "x_forwarded_for" => Self::XForwardedFor, "forwarded" => Self::Forwarded }
    CertificatePart {
        "certificate" => Self::Certificate, "chain" => Self::Chain, "subject" => Self::Subject,
        "common_name" => Self::CommonName, "san" => Self::San, "fingerprint" => Self::Fingerprint,
        "serial" => Self::Serial,
    }
    ClientAuthMode { "require" => Self::Require, "request" => Self::Request }
    Protocol { "http1" => Self::Http1, "http2" => Self::Http2, "auto" => Self::Auto }
    ProxyProtocol { "none" => Self::None, "accept" => Self::Accept, "require" => Self::Require }
    Version { "v1" => Self::V1, "v2" => Self::V2 }
    TlsVersion { "1.2" => Self::V1_2, "1.3" => Self::V1_3 }
    TraceFrom { "any" => Self::Any, "trusted" => Self::Trusted }
    Eviction { "lru" => Self::Lru, "s3_fifo" => Self::S3Fifo }
    log::LevelFilter {
        "none" => Self::Off, "error" => Self::Error, "warn" => Self::Warn, "info" => Self::Info,
        "debug" => Self::Debug, "trace" => Self::Trace,
    }
}

impl Decode for Http2 {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("`true`, `false` or `only`", "`only` is HTTP/2 and nothing else");
        let scalar = scalar(node, at, wanted, help, problems)?;
        match scalar.kind() {
            Kind::Bool(true) => Some(Self::ByAlpn),
            Kind::Bool(false) => Some(Self::Off),
            Kind::Text if scalar.text == "only" => Some(Self::Only),
            Kind::Text | Kind::Number | Kind::Empty | Kind::Null => refuse(node, at, wanted, help, problems),
        }
    }

    fn schema() -> Json {
        json!({ "enum": [true, false, "only"] })
    }
}

impl Decode for PathOr {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let text = &scalar(node, at, "`none`, `stdout` or a path", "write stdout, none or a path", problems)?.text;
        match text.as_str() {
            "none" => Some(Self::None),
            "stdout" => Some(Self::Stdout),
            _ => FilePath::decode(node, at, problems).map(Self::Path),
        }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for Dashboard {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("`none`, `on_change` or a duration", "write on_change, none, or an interval such as 5s");
        match scalar(node, at, wanted, help, problems)?.text.as_str() {
            "none" => Some(Self::None),
            "on_change" => Some(Self::OnChange),
            text => match units::duration(text) {
                Ok(interval) if interval >= Duration::from_secs(1) => Some(Self::Every(interval)),
                Ok(_) => refuse(node, at, "at least 1s", help, problems),
                Err(UnitError::Bare(_)) => with_unit(node, at, DURATION, units::duration, problems).map(Self::Every),
                Err(_) => refuse(node, at, wanted, help, problems),
            },
        }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}
