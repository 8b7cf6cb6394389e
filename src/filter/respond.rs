//! Is the answer already known? Answers with a fixed status and text.

use std::ops::ControlFlow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use pingora::http::RequestHeader;

use super::{Answer, Client, Filter};
use crate::config::Action;

/// Gives every request the same answer.
pub(super) struct Respond(Answer);

impl Respond {
    /// `None` for routes that lead elsewhere.
    pub(super) fn new(action: &Action) -> Option<Self> {
        match action {
            Action::Respond { status, body } => Some(Self(Answer::Reply {
                status: StatusCode::from_u16(*status).ok()?,
                headers: vec![(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))],
                body: Bytes::from(body.clone()),
            })),
            Action::Upstream(_) | Action::Redirect { .. } => None,
        }
    }
}

impl Filter for Respond {
    fn on_request(&self, _head: &mut RequestHeader, _client: &Client) -> ControlFlow<Answer> {
        ControlFlow::Break(self.0.clone())
    }
}
