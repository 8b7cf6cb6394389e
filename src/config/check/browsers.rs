//! Does it make sense what browsers are told, and how a route is closed?

use http::{HeaderName, HeaderValue};

use super::Check;
use crate::config::file::{self, FieldOrAny, Marked};
use crate::config::{Cors, Maintenance, Origin, SecurityHeaders};

/// A body of our own is part of the configuration and is held in memory.
const MAX_BODY: usize = 64 << 10;

impl Check<'_> {
    pub(super) fn cors(&mut self, route: &file::Route) -> Option<Cors> {
        let cors = route.cors.as_ref()?;
        let origins: Vec<_> = cors.origins.iter().map(|origin| origin.value.clone()).collect();
        if origins.is_empty() && !self.problems.speak_of(&cors.origins.at.key) {
            self.problems.error(&cors.origins.at, "no page could use anything", "name an origin, or leave `cors` out");
        }
        if *cors.credentials && origins.contains(&Origin::Any) {
            let help = "name the origins: with `\"*\"` every page in the world could act in the name of its visitors";
            self.problems.error(&cors.credentials.at, "this is never given to everybody", help);
        }
        let named = |field: &Marked<FieldOrAny>| match &field.value {
            FieldOrAny::Field(name) => Some(name.clone()),
            FieldOrAny::Any => None,
        };
        Some(Cors {
            origins,
            methods: cors.methods.iter().map(|method| method.value.clone()).collect(),
            headers: cors.headers.iter().map(named).collect(),
            expose: cors.expose.iter().map(|name| name.value.clone()).collect(),
            credentials: *cors.credentials,
            max_age: *cors.max_age,
        })
    }

    pub(super) fn security_headers(&mut self, route: &file::Route) -> Option<SecurityHeaders> {
        let headers = route.security_headers.as_ref()?;
        let others: [(&'static str, &Option<HeaderValue>); 7] = [
            ("x-content-type-options", &headers.content_type_options.value),
            ("x-frame-options", &headers.frame_options.value),
            ("referrer-policy", &headers.referrer_policy.value),
            ("content-security-policy", &headers.content_security_policy.value),
            ("permissions-policy", &headers.permissions_policy.value),
            ("cross-origin-opener-policy", &headers.cross_origin_opener_policy.value),
            ("cross-origin-resource-policy", &headers.cross_origin_resource_policy.value),
        ];
        let others =
            others.into_iter().filter_map(|(name, value)| Some((HeaderName::from_static(name), value.clone()?)));
        Some(SecurityHeaders { transport: headers.strict_transport_security.value.clone(), others: others.collect() })
    }

    pub(super) fn maintenance(&mut self, route: &file::Route) -> Option<Maintenance> {
        let maintenance = route.maintenance.as_ref()?;
        if maintenance.body.len() > MAX_BODY {
            self.problems.error(&maintenance.body.at, "an answer of our own holds at most 64KiB", "write less");
        }
        Some(Maintenance {
            retry_after: *maintenance.retry_after,
            body: maintenance.body.value.clone(),
            except: maintenance.except.iter().map(|network| network.value.trunc()).collect(),
        })
    }
}
