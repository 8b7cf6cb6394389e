//! Do the settings of traces make sense?

use super::Check;
use crate::config::Tracing;
use crate::config::file::{self, Marked};

impl Check<'_> {
    /// How requests are traced, if they are.
    pub(super) fn tracing(&mut self, tracing: &Marked<Option<file::Tracing>>) -> Option<Tracing> {
        let section = tracing.as_ref()?;
        if !cfg!(feature = "otlp") {
            let help = "take a build with the feature `otlp`, which is on by default, or leave `tracing` out";
            self.problems.error(&tracing.at, "this build cannot send traces", help);
        }
        if section.service.trim().is_empty() {
            self.problems.error(&section.service.at, "the service has no name", "leave it out: it is `portcullis`");
        }
        let token = section.token.as_ref().and_then(|token| self.secret(token, &section.token.at));
        if token.is_some() && !section.otlp.tls && !section.otlp.is_loopback() {
            let help = "write https://, or send to a collector on this machine";
            self.problems.warning(&section.otlp.at, "everybody on the way can read the token", help);
        }
        Some(Tracing {
            otlp: section.otlp.value.clone(),
            sample: section.sample.0,
            from: *section.from,
            service: section.service.value.clone(),
            token,
            ca: self.believed(&section.ca, &section.otlp),
        })
    }
}
