//! Does the discovery of backends make sense? Exactly one source, and only the keys that belong to it.

use std::sync::Arc;
use std::time::Duration;

use super::Check;
use super::files::given;
use crate::config::file::{self, Marked};
use crate::config::{Discover, Target};

impl Check<'_> {
    /// Where the backends of an upstream come from besides its list, if from anywhere.
    pub(super) fn discover(&mut self, upstream: &file::Upstream) -> Option<Discover> {
        let section = upstream.discover.as_ref()?;
        let interval = |default| section.interval.as_ref().map_or(Duration::from_secs(default), |interval| interval.0);
        let server = *section.server;
        let mut sources: Vec<Discover> = [
            self.discover_dns(upstream, section, interval(30)),
            section.srv.as_ref().map(|name| {
                let name = Arc::from(name.0.as_str());
                Discover::Srv { name, interval: interval(30), server }
            }),
            // It may be written later: a pool that begins empty is better than a program that does not start.
            section.file.as_ref().map(|path| Discover::File(self.files.joined(path))),
            section.http.as_ref().map(|url| Discover::Http { url: url.clone(), interval: interval(10) }),
            section.register.as_ref().map(|register| Discover::Register { ttl: register.ttl.0 }),
        ]
        .into_iter()
        .flatten()
        .collect();
        self.exactly_one(&upstream.discover, sources.len());
        let source = sources.pop()?;
        self.only_its_keys(section, &source);
        Some(source)
    }

    fn exactly_one<T>(&mut self, at: &Marked<T>, sources: usize) {
        let help = "name one of dns, srv, file, http and register";
        match sources {
            0 if self.problems.speak_of(&at.at.key) => {}
            0 => self.problems.error(&at.at, "it does not say where backends come from", help),
            1 => {}
            _ => self.problems.error(&at.at, "backends can come from one place only", help),
        }
    }

    fn only_its_keys(&mut self, section: &file::Discover, source: &Discover) {
        let (asks, asks_dns) = match source {
            Discover::Dns { .. } | Discover::Srv { .. } => (true, true),
            Discover::Http { .. } => (true, false),
            Discover::File(_) | Discover::Register { .. } => (false, false),
        };
        if let (Some(interval), false) = (given(&section.interval), asks) {
            let what = "nothing is asked for at an interval";
            self.problems.error(&interval.at, what, "it belongs to dns, srv and http: leave it out");
        }
        if let (Some(server), false) = (given(&section.server), asks_dns) {
            self.problems.error(&server.at, "no name is asked for", "it belongs to dns and srv: leave it out");
        }
    }

    fn discover_dns(
        &mut self,
        upstream: &file::Upstream,
        section: &file::Discover,
        interval: Duration,
    ) -> Option<Discover> {
        let url = given(&section.dns)?;
        let Target::Name { host, port } = url.target.clone() else {
            let help = "write it into `backends`; what is looked up is a name such as app.internal:8000";
            self.problems.error(&url.at, "this is no name that could have addresses", help);
            return None;
        };
        if url.tls && *upstream.tls.verify && upstream.tls.server_name.is_none() {
            let help = "add `tls: { server_name: NAME }` to the upstream with the name in the backends' certificates";
            self.problems.error(&url.at, "an https backend given by its address has no name to verify", help);
        }
        Some(Discover::Dns { host, port, tls: url.tls, interval, server: *section.server })
    }

    /// Backends register on the admin address, so there must be one.
    pub(super) fn registers(&mut self, file: &file::File) {
        let upstreams = file.upstreams.0.iter().filter_map(|named| named.value.as_ref()?.discover.as_ref());
        let first = upstreams.filter_map(|discover| given(&discover.register)).next();
        if let (Some(register), None) = (first, file.admin.address.value.as_ref()) {
            let help = "give `admin.address` a loopback address or a unix socket";
            self.problems.error(&register.at, "there is no admin address to register on", help);
        }
    }
}
