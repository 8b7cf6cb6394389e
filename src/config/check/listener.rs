//! Do the listeners make sense, alone and together?

use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::ServerName;

use super::files::given;
use super::{Check, Names};
use crate::config::file::{self, Marked};
use crate::config::{Address, ClientAuth, Http2, Listener, ListenerLimits, ListenerTimeouts, Tls};

/// The HTTP/1.1 reader below us holds a little less than 1 MiB of head and no more fields.
const MAX_HEADER_SIZE: u64 = 512 << 10;
const MAX_HEADERS: usize = 256;

impl Check<'_> {
    pub(super) fn listeners(&mut self, listeners: &Marked<Vec<Marked<file::Listener>>>) -> Vec<Listener> {
        if listeners.is_empty() && !self.problems.speak_of(&listeners.at.key) {
            let help = "add one: `- address: 0.0.0.0:8443` with `tls: { self_signed: [localhost] }`";
            self.problems.error(&listeners.at, "there is no listener", help);
        }
        let mut names = Names::default();
        let mut checked: Vec<Listener> = Vec::new();
        for listener in listeners.iter() {
            if let Some(name) = &listener.name.value {
                names.claim(name, &listener.name.at, "the listener", self.problems);
            }
            let next = self.listener(listener);
            if let Some(index) = checked.iter().position(|other| overlap(&other.address, &next.address)) {
                let what = format!("this address is also that of {}", listeners[index].at.key);
                self.problems.error(&listener.address.at, what, "listen on another address or port");
            }
            checked.push(next);
        }
        checked
    }

    fn listener(&mut self, listener: &file::Listener) -> Listener {
        let tls = listener.tls.as_ref().map(|tls| self.tls(tls, &listener.tls));
        if let (Some(_), Some(port)) = (&tls, given(&listener.redirect_to_https)) {
            let help = "redirect from a listener without `tls`; this one speaks https already";
            self.problems.error(&port.at, format!("a listener with tls cannot redirect to port {}", *port), help);
        }
        let acme = given(&listener.acme_challenges).map(|path| self.files.directory(&path, self.problems));
        Listener {
            name: listener.name.as_deref().map(Into::into),
            address: self.address(&listener.address, &listener.address.at),
            http2: self.http2(listener),
            tls,
            redirect_to_https: listener.redirect_to_https.map(Into::into),
            acme_challenges: acme,
            max_connections_per_address: listener.max_connections_per_address.map(Into::into),
            proxy_protocol: *listener.proxy_protocol,
            timeouts: timeouts(&listener.timeouts),
            limits: self.limits(&listener.limits),
        }
    }

    fn http2(&mut self, listener: &file::Listener) -> Http2 {
        if *listener.http2 == Http2::Only && listener.redirect_to_https.is_some() {
            let help = "browsers speak HTTP/1.1 without tls; leave `http2` out";
            self.problems.error(&listener.http2.at, "a listener that redirects to https cannot be HTTP/2 only", help);
        }
        *listener.http2
    }

    fn tls(&mut self, tls: &file::Tls, at: &Marked<Option<file::Tls>>) -> Tls {
        if tls.certificates.is_empty() && tls.self_signed.is_empty() && !self.problems.speak_of(&at.at.key) {
            let help = "add `certificates: [{ cert: PATH, key: PATH }]`, or for development `self_signed: [localhost]`";
            self.problems.error(&at.at, "there is no certificate", help);
        }
        let certificates =
            tls.certificates.iter().map(|pair| self.files.certificate(&pair.cert, &pair.key, self.problems)).collect();
        for name in tls.self_signed.iter() {
            let plain = name.strip_prefix("*.").unwrap_or(name);
            if ServerName::try_from(plain).is_err() {
                let help = "write a DNS name or an IP address";
                self.problems.error(&name.at, format!("`{}` is no name for a certificate", **name), help);
            }
        }
        Tls {
            certificates,
            self_signed: tls.self_signed.iter().map(|name| name.value.clone()).collect(),
            client_auth: tls.client_auth.as_ref().map(|auth| self.client_auth(auth)),
            min_version: *tls.min_version,
        }
    }

    fn client_auth(&mut self, auth: &file::ClientAuth) -> ClientAuth {
        ClientAuth {
            ca: self.files.authorities(&auth.ca, self.problems),
            mode: *auth.mode,
            crl: given(&auth.crl).map(|crl| self.files.revocations(&crl, self.problems)),
            headers: self.told(&auth.headers),
        }
    }

    fn limits(&mut self, limits: &file::ListenerLimits) -> ListenerLimits {
        let header_size = limits.header_size.0;
        if !(1024..=MAX_HEADER_SIZE).contains(&header_size) {
            let what = format!("{header_size} bytes is not a size for a request's head");
            self.problems.error(&limits.header_size.at, what, "choose from 1KiB to 512KiB");
        }
        if limits.headers.get() > MAX_HEADERS {
            let what = format!("{} header fields are more than can be read", limits.headers.get());
            self.problems.error(&limits.headers.at, what, format!("choose at most {MAX_HEADERS}"));
        }
        ListenerLimits {
            header_size: usize::try_from(header_size).unwrap_or(usize::MAX),
            headers: limits.headers.get(),
            requests_per_connection: limits.requests_per_connection.get(),
            h2_streams: limits.h2_streams.get(),
            min_rate: limits.min_rate.as_ref().map(|rate| rate.0),
        }
    }
}

fn timeouts(timeouts: &file::ListenerTimeouts) -> ListenerTimeouts {
    let of = |timeout: &Marked<file::Timeout>| -> Duration { timeout.0 };
    ListenerTimeouts {
        handshake: of(&timeouts.handshake),
        header: of(&timeouts.header),
        body: of(&timeouts.body),
        idle: of(&timeouts.idle),
        write: of(&timeouts.write),
        request: timeouts.request.as_ref().map(|timeout| timeout.0),
    }
}

/// Whether two sockets could not be open at once.
pub(super) fn overlap(a: &Address, b: &Address) -> bool {
    match (a, b) {
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::Tcp(a), Address::Tcp(b)) => {
            // Port 0 is another port each time. `[::]` also takes IPv4, unless the system says otherwise.
            let any = |ip: IpAddr| ip.is_unspecified();
            let family = a.is_ipv4() == b.is_ipv4();
            let wide = |x: IpAddr, same: bool| any(x) && (same || x.is_ipv6());
            let ips = a.ip() == b.ip() || wide(a.ip(), family) || wide(b.ip(), family);
            a.port() == b.port() && a.port() != 0 && ips
        }
        (Address::Unix(_), Address::Tcp(_)) | (Address::Tcp(_), Address::Unix(_)) => false,
    }
}
