//! What may be written about the discovery of backends? The shape of `discover`.

use std::net::SocketAddr;

use http::Uri;
use serde_json::{Value as Json, json};

use super::backend::{BackendUrl, dns_name};
use super::decode::{Decode, refuse, scalar};
use super::leaves::{FilePath, Timeout};
use super::section::section;
use crate::config::HttpUrl;
use crate::config::outline::Spelled;
use crate::config::problem::{Problems, Spot};
use crate::config::tree::Node;

section! {
    /// Where backends come from that the file does not name: one of `dns`, `srv`, `file`, `http` and `register`.
    Discover {
        /// `HOST:PORT`, or `https://HOST`: each address of the name is a backend.
        dns: Option<BackendUrl> = "null",
        /// The name of SRV records, such as `_http._tcp.app.internal`: each is a backend, its priority the tier.
        srv: Option<ServiceName> = "null",
        /// A YAML or JSON list in a file of its own, which is watched.
        file: Option<FilePath> = "null",
        /// The URL of a JSON list, which is asked for again and again.
        http: Option<HttpUrl> = "null",
        /// Backends register themselves on the admin address.
        register: Option<Register> = "null",
        /// With `http`: between two looks, 10s if it is left out. With `dns` and `srv`: the longest time, 30s; an answer
        /// whose time is over sooner is asked for again then.
        interval: Option<Timeout> = "null",
        /// With `dns` and `srv`: the server to ask, in place of those of the system.
        server: Option<SocketAddr> = "null",
    }
    later {}
}

section! {
    /// How backends register themselves.
    Register {
        /// How long a heartbeat holds.
        ttl: Timeout = "15s",
    }
    later {}
}

/// The name of SRV records.
#[derive(Clone, Debug)]
pub(crate) struct ServiceName(pub(crate) String);

impl Decode for ServiceName {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let help = "write _http._tcp.app.internal; `_https` at its beginning makes it TLS";
        let text = &scalar(node, at, "the name of SRV records", help, problems)?.text;
        dns_name(text).map(Self).or_else(|| refuse(node, at, "the name of SRV records", help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for SocketAddr {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let (wanted, help) = ("an IP address with a port", "write 127.0.0.1:8600 or \"[::1]:8600\"");
        let text = &scalar(node, at, wanted, help, problems)?.text;
        text.parse().ok().or_else(|| refuse(node, at, wanted, help, problems))
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

impl Decode for HttpUrl {
    fn decode(node: &Node, at: &Spot, problems: &mut Problems) -> Option<Self> {
        let wanted = "a URL";
        let help = "write http://10.0.0.1:8500/path or https://name.internal/path, without a user";
        let text = &scalar(node, at, wanted, help, problems)?.text;
        http_url(text).or_else(|| refuse(node, at, wanted, help, problems))
    }

    /// A query may hold what nobody shall read.
    fn spell(node: &Node) -> Spelled {
        let spelled = Spelled::of(node);
        let has_query = if let Spelled::Text(text) = &spelled { text.contains('?') } else { false };
        if has_query { Spelled::hidden(node) } else { spelled }
    }

    fn schema() -> Json {
        json!({ "type": "string" })
    }
}

fn http_url(text: &str) -> Option<HttpUrl> {
    let uri: Uri = text.parse().ok()?;
    let (tls, implied) = match uri.scheme_str()? {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return None,
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = match host.parse::<std::net::IpAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) => dns_name(host)?,
    };
    let port = authority.port_u16().or(authority.port().is_none().then_some(implied)).filter(|port| *port > 0)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Some(HttpUrl { tls, host: host.into(), port, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_a_list_has_a_host_and_no_user() {
        for (text, shown, path) in [
            ("http://10.0.0.1:8500/v1?dc=a", "http://10.0.0.1:8500/v1", "/v1?dc=a"),
            ("https://Registry.internal", "https://registry.internal/", "/"),
            ("http://[::1]:80/x", "http://[::1]/x", "/x"),
        ] {
            let url = http_url(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.path.as_str()), (shown, path));
        }
        for text in
            ["10.0.0.1:80/x", "ftp://a.b/", "http://me:secret@a.b/", "http://a.b:0/", "/x", "http://", "http://-a/"]
        {
            assert_eq!(http_url(text), None, "{text}");
        }
    }
}
