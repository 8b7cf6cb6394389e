//! A share of the visitors sees the new version, and goes on seeing it: a filter of one's own.
//!
//! `cargo run --example ab_test -- run -c FILE`, with a route that has
//! `filters: [{ ab_test: { percent: 10, cookie: variant } }]`. Backends are told by the field `X-Variant`.

use std::process::ExitCode;

use portcullis::custom::{Filter, Request, Response, Settings, Verdict};
use portcullis::{HeaderName, HeaderValue, Program};
use serde::Deserialize;

const VARIANT: HeaderName = HeaderName::from_static("x-variant");

/// Who sees what, as the file says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AbTest {
    percent: u8,
    cookie: String,
}

impl AbTest {
    pub(crate) fn new(settings: &Settings) -> Result<Self, String> {
        let test: Self = settings.read()?;
        if test.percent > 100 { Err("percent is at most 100".to_owned()) } else { Ok(test) }
    }
}

impl Filter for AbTest {
    fn on_request(&self, request: &mut Request<'_>) -> Verdict {
        let variant = match request.cookie(&self.cookie) {
            Some("b") => "b",
            Some("a") => "a",
            Some(_) | None if fastrand::u8(..100) < self.percent => "b",
            Some(_) | None => "a",
        };
        request.set(VARIANT, HeaderValue::from_static(variant));
        Verdict::GoOn
    }

    fn on_response(&self, response: &mut Response<'_>, request: &Request<'_>) {
        let (Some(variant), known) = (request.header("x-variant"), request.cookie(&self.cookie)) else { return };
        let cookie = format!("{}={variant}; Path=/; Max-Age=2592000; SameSite=Lax", self.cookie);
        if known != Some(variant)
            && let Ok(cookie) = cookie.try_into()
        {
            response.append(HeaderName::from_static("set-cookie"), cookie);
        }
    }
}

pub(crate) fn main() -> ExitCode {
    Program::new().filter("ab_test", AbTest::new).main()
}
