//! Do the upstreams make sense?

use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use rustls::pki_types::ServerName;

use super::files::{given, joined_target};
use super::limits::backend_limits;
use super::{Check, Names, live};
use crate::config::file::{self, Map, Marked};
use crate::config::problem::Problems;
use crate::config::{Backend, Balance, HealthCheck, Schedule, Sticky, Target, Upstream, UpstreamTimeouts, UpstreamTls};

impl Check<'_> {
    pub(super) fn upstreams(&mut self, upstreams: &Map<file::Upstream>) -> Vec<Upstream> {
        let mut names = Names::default();
        for named in &upstreams.0 {
            // That a key stands twice was told with the tree.
            if !names.seen.contains_key(&named.name) {
                names.claim(&named.name, &named.at, "the upstream", self.problems);
            }
        }
        let known = upstreams.0.iter().filter_map(|named| Some((named, named.value.as_ref()?)));
        known.map(|(named, upstream)| self.upstream(&named.name, upstream)).collect()
    }

    fn upstream(&mut self, name: &str, upstream: &file::Upstream) -> Upstream {
        if upstream.backends.is_empty()
            && upstream.discover.is_none()
            && !self.problems.speak_of(&upstream.backends.at.key)
        {
            self.problems.error(&upstream.backends.at, "there is no backend", "add one: `backends: [127.0.0.1:8000]`");
        }
        self.panic_threshold(upstream);
        Upstream {
            name: name.into(),
            balance: self.balance(&upstream.balance),
            backends: self.backends(upstream),
            discover: self.discover(upstream),
            health_check: self.health_check(upstream.health_check.as_ref()),
            live_health: self.live_health(upstream),
            obey: live::obey(upstream),
            panic_threshold: upstream.panic_threshold.0,
            overflow: self.overflow(&upstream.overflow),
            slow_start: *upstream.slow_start,
            sticky: upstream.sticky.as_ref().map(|sticky| self.sticky(sticky)),
            queue: self.queue(upstream),
            concurrency: self.concurrency(upstream),
            timeouts: timeouts(&upstream.timeouts),
            protocol: *upstream.protocol,
            tls: self.upstream_tls(&upstream.tls),
        }
    }

    fn panic_threshold(&mut self, upstream: &file::Upstream) {
        if upstream.panic_threshold.0 > 1.0 {
            let help = "choose from 0% (never use backends that are not ready) to 100%";
            self.problems.error(&upstream.panic_threshold.at, "more than all cannot be ready", help);
        }
    }

    fn overflow(&mut self, overflow: &Marked<file::Share>) -> f64 {
        if overflow.0 < 1.0 {
            let help = "100% hands over what the missing backends would have taken; 140% expects some reserve";
            self.problems.error(&overflow.at, "below 100% a whole tier would not have enough either", help);
        }
        overflow.0
    }

    fn balance(&mut self, balance: &Marked<file::Balance>) -> Balance {
        match &balance.value {
            file::Balance::Brought(brought) => self.brought_policy(brought, &balance.at),
            file::Balance::RoundRobin => Balance::RoundRobin,
            file::Balance::LeastConnections => Balance::LeastConnections,
            file::Balance::Random => Balance::Random,
            file::Balance::TwoChoices => Balance::TwoChoices,
            file::Balance::PeakEwma => Balance::PeakEwma,
            file::Balance::ConsistentHash(hash) => {
                if !(1.0..=10.0).contains(&hash.bounded_load.0) {
                    let what = "the bound lies between the average load (100%) and ten times of it (1000%)";
                    self.problems.error(&hash.bounded_load.at, what, "125% is a good start");
                }
                Balance::ConsistentHash { key: hash.key.value.clone(), bounded_load: hash.bounded_load.0 }
            }
        }
    }

    fn sticky(&mut self, sticky: &file::Sticky) -> Sticky {
        if sticky.ttl.0.as_secs() == 0 {
            self.problems.error(&sticky.ttl.at, "a cookie counts in seconds", "give it 1s at least; 1h suits most");
        }
        Sticky { cookie: sticky.cookie.0.clone(), ttl: sticky.ttl.0, same_site: *sticky.same_site }
    }

    fn backends(&mut self, upstream: &file::Upstream) -> Vec<Backend> {
        let (mut names, mut urls) = (Names::default(), Names::default());
        let mut checked = Vec::new();
        for backend in upstream.backends.iter() {
            let file::Backend(section) = &backend.value;
            let url = section.url.target.show();
            urls.claim(&url, &section.url.at, "the backend", self.problems);
            let (name, at) = match &section.name.value {
                Some(name) => (name.as_str(), &section.name.at),
                None => (&*url, &section.url.at),
            };
            // Two equal URLs without names are one problem, not two.
            if section.name.value.is_some() || !names.seen.contains_key(name) {
                names.claim(name, at, "the backend", self.problems);
            }
            self.backend_name_to_verify(upstream, &section.url);
            checked.push(check_backend(section, self.files.folder(), self.problems));
        }
        checked
    }

    /// An address cannot be verified as a name: the operator has to say which name it is.
    fn backend_name_to_verify(&mut self, upstream: &file::Upstream, url: &Marked<file::BackendUrl>) {
        let named = match &url.target {
            Target::Name { .. } => true,
            Target::Address(_) | Target::Unix(_) => upstream.tls.server_name.is_some(),
        };
        if url.tls && !named && *upstream.tls.verify {
            let help = "add `tls: { server_name: NAME }` to the upstream with the name in the backend's certificate";
            self.problems.error(&url.at, "an https backend given by its address has no name to verify", help);
        }
    }

    fn health_check(&mut self, check: Option<&file::HealthCheck>) -> HealthCheck {
        let Some(check) = check else { return HealthCheck::None };
        let schedule = Schedule {
            interval: check.interval.0,
            fast_interval: check.fast_interval.0,
            timeout: check.timeout.0,
            fall: check.fall.get(),
            rise: check.rise.get(),
        };
        if let Some(host) = given(&check.host)
            && (host.is_empty() || host.contains([' ', '/']) || HeaderValue::from_str(&host).is_err())
        {
            self.problems.error(&host.at, format!("`{}` is no host", *host), "write a name such as app.internal");
        }
        match &check.path.value {
            Some(path) => HealthCheck::Http {
                path: path.0.clone(),
                host: check.host.value.clone(),
                expect: check.expect.0.clone(),
                schedule,
            },
            None => {
                let default = check.expect.0 == [200..=399];
                let http_only = [(check.host.is_some(), &check.host.at), (!default, &check.expect.at)];
                for (_, at) in http_only.into_iter().filter(|(used, _)| *used) {
                    let help = "add `path: /healthz` to make it an HTTP check, or leave this key out";
                    self.problems.error(at, "a check without `path` is a TCP connect, which has no use for this", help);
                }
                HealthCheck::Tcp(schedule)
            }
        }
    }

    fn upstream_tls(&mut self, tls: &file::UpstreamTls) -> UpstreamTls {
        if let Some(name) = given(&tls.server_name)
            && ServerName::try_from(name.as_str()).is_err()
        {
            self.problems.error(&name.at, format!("`{}` is no name", *name), "write a DNS name or an IP address");
        }
        let client = match (given(&tls.client_cert), given(&tls.client_key)) {
            (Some(cert), Some(key)) => Some(self.files.certificate(&cert, &key, self.problems)),
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => {
                let help = "`client_cert` and `client_key` go together";
                self.problems.error(&one.at, "the other half of the certificate is missing", help);
                None
            }
        };
        UpstreamTls {
            verify: *tls.verify,
            ca: given(&tls.ca).map(|ca| self.files.authorities(&ca, self.problems)),
            server_name: tls.server_name.value.clone(),
            client,
        }
    }
}

/// One backend, on its own; also one that was discovered. Paths of sockets start in `folder`.
pub(in crate::config) fn check_backend(
    section: &file::BackendSection,
    folder: &Path,
    problems: &mut Problems,
) -> Backend {
    let target = &section.url.target;
    Backend {
        name: section.name.as_deref().map_or_else(|| target.show(), Arc::from),
        target: joined_target(folder, target),
        tls: section.url.tls,
        weight: section.weight.0,
        tier: tier(section, problems),
        limits: backend_limits(section, problems),
        send_proxy: *section.send_proxy,
        drained: false,
    }
}

fn tier(section: &file::BackendSection, problems: &mut Problems) -> u32 {
    if *section.backup && section.tier.written {
        let help = "`backup: true` is the same as `tier: 1`: leave one of the two out";
        problems.error(&section.backup.at, "this backend has a tier already", help);
    }
    if *section.backup { 1 } else { section.tier.0 }
}

fn timeouts(timeouts: &file::UpstreamTimeouts) -> UpstreamTimeouts {
    UpstreamTimeouts {
        connect: timeouts.connect.0,
        first_byte: timeouts.first_byte.0,
        between_bytes: timeouts.between_bytes.0,
        write: timeouts.write.0,
        idle: timeouts.idle.0,
        tunnel: timeouts.tunnel.0,
    }
}
