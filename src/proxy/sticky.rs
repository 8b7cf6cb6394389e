//! Does the client come back to the backend that it has been with? Reads and sets the cookie of its session.

use std::time::SystemTime;

use http::HeaderValue;
use http::header::SET_COOKIE;
use pingora::http::{RequestHeader, ResponseHeader};

use super::attempt::cookie;
use super::exchange::Exchange;
use super::snapshot::Plan;
use crate::config::SameSite;
use crate::upstream::sticky::Session;

impl Exchange {
    /// The client's session, if it has one.
    pub(super) fn session_of(&mut self, plan: &Plan, head: &RequestHeader) -> Option<Session> {
        let sticky = plan.sticky.as_ref()?;
        if self.session.is_none() {
            self.session = cookie(head, &sticky.config.cookie).and_then(|text| sticky.read(text, SystemTime::now()));
        }
        self.session
    }

    /// Gives the client a cookie for the backend that has answered, unless it has a good one. An answer that is an
    /// error of the backend's begins no session: the next request may have more luck elsewhere.
    pub(super) fn remember_session(&self, head: &mut ResponseHeader) -> pingora::Result<()> {
        let Some(sticky) = self.plan.as_ref().and_then(|plan| plan.sticky.as_ref()) else { return Ok(()) };
        let Some(attempt) = self.attempt.as_ref().filter(|_| !head.status.is_server_error()) else { return Ok(()) };
        let seat = attempt.pick.backend().seat;
        let goes_on = |session: &Session| match session.seat == seat {
            true => !session.ends_soon,
            // Its backend had too much to do for a moment, and shall have its client back.
            false => attempt.pick.upstream().may_serve_again(session.seat, &self.tried),
        };
        if self.session.as_ref().is_some_and(goes_on) {
            return Ok(());
        }
        let Some(value) = sticky.cookie(seat, SystemTime::now()) else { return Ok(()) };
        let (name, age) = (&sticky.config.cookie, sticky.config.ttl.as_secs());
        let same_site = match sticky.config.same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        };
        let secure = if self.connection.as_ref().is_some_and(|it| it.tls.is_some()) { "; Secure" } else { "" };
        let field = format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite={same_site}{secure}");
        if let Ok(field) = HeaderValue::try_from(field) {
            head.append_header(SET_COOKIE, field)?;
        }
        Ok(())
    }
}
