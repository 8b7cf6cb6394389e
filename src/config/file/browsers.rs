//! What may be written about browsers and about closing a route? The shapes of `cors`, `security_headers` and
//! `maintenance`.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::decode::{Decode, Marked, refuse, scalar};
use super::section::section;
use crate::config::Origin;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::Node;

section! {
    /// Which pages of other sites may use what comes from here.
    Cors {
        /// Where they come from: `https://app.example.com`, `"https://*.example.com"`, or `"*"` for anywhere.
        origins: Vec<Marked<Origin>>,
        /// What they may ask.
        methods: Vec<Marked<Method>> = "[GET, HEAD, POST]",
        /// Which fields they may send, beside those that all may; `"*"` is any.
        headers: Vec<Marked<FieldOrAny>> = "[]",
        /// Which fields of answers they may read, beside those that all may.
        expose: Vec<Marked<HeaderName>> = "[]",
        /// Whether requests come with cookies and the like. Not together with `"*"` in `origins`.
        credentials: bool = "false",
        /// How long a browser remembers what it was told.
        max_age: Duration = "10m",
    }
    later {}
}

section! {
    /// Fields that make browsers careful, each only where the backend says nothing of its own. `none`: it is not sent.
    SecurityHeaders {
        /// Strict-Transport-Security, over TLS alone.
        strict_transport_security: Option<HeaderValue> = "max-age=31536000",
        /// X-Content-Type-Options
        content_type_options: Option<HeaderValue> = "nosniff",
        /// X-Frame-Options
        frame_options: Option<HeaderValue> = "SAMEORIGIN",
        /// Referrer-Policy
        referrer_policy: Option<HeaderValue> = "strict-origin-when-cross-origin",
        /// Content-Security-Policy; what is right depends on the site.
        content_security_policy: Option<HeaderValue> = "null",
        /// Permissions-Policy
        permissions_policy: Option<HeaderValue> = "null",
        /// Cross-Origin-Opener-Policy
        cross_origin_opener_policy: Option<HeaderValue> = "null",
        /// Cross-Origin-Resource-Policy
        cross_origin_resource_policy: Option<HeaderValue> = "null",
    }
    later {}
}

section! {
    /// Every request is answered 503, until this is taken away again.
    Maintenance {
        /// When clients may try again.
        retry_after: Duration = "5m",
        /// What they read; HTML where it begins with `<`.
        body: String = "\"the service is closed for maintenance\"",
        /// Addresses for which it is open.
        except: Vec<Marked<IpNet>> = "[]",
    }
    later {}
}

/// The name of a field, or any.
#[derive(Clone, Debug)]
pub(crate) enum FieldOrAny {
    Any,
    Field(HeaderName),
}

impl Decode for FieldOrAny {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("the name of a header field", "write a name such as x-request-id, or \"*\" for any");
        if scalar(node, at, wanted, help, problems)?.text == "*" {
            return Some(Self::Any);
        }
        HeaderName::decode(node, at, problems).map(Self::Field)
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for Origin {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "an origin";
        let help = "write https://app.example.com, \"https://*.example.com\" or \"*\": a scheme, a host, perhaps a port, no path";
        let text = &scalar(node, at, wanted, help, problems)?.text.to_ascii_lowercase();
        if text == "*" {
            return Some(Self::Any);
        }
        origin(text).or_else(|| refuse(node, at, wanted, help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^(\\*|https?://[^/]+|\\$\\{.*)$" })
    }
}

/// As browsers write it: never with the port that the scheme has anyway.
fn origin(text: &str) -> Option<Origin> {
    let (scheme, rest) = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?;
    let usual = if scheme == "https" { ":443" } else { ":80" };
    let rest = rest.strip_suffix(usual).unwrap_or(rest);
    let (host, below) = rest.strip_prefix("*.").map_or((rest, false), |host| (host, true));
    let authority = host.parse::<http::uri::Authority>().ok()?;
    let plain = !host.contains(['@', '*']) && (authority.port().is_none() || authority.port_u16().is_some());
    let origin = if below {
        Origin::Below { scheme: format!("{scheme}://"), domain: format!(".{host}") }
    } else {
        Origin::Exact(format!("{scheme}://{host}"))
    };
    plain.then_some(origin)
}
