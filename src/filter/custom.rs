//! What does the program add that has brought a filter of its own?

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};

use super::{Answer, Client, Filter};
use crate::answer::Refusal;
use crate::custom::{self, Reply, Request, Response, Verdict};

/// Shows heads to a program's filter, in its own words.
pub(super) struct Custom(Arc<dyn custom::Filter>);

impl Custom {
    pub(super) fn new(filter: &Arc<dyn custom::Filter>) -> Self {
        Self(filter.clone())
    }
}

impl Filter for Custom {
    fn on_request(&self, head: &mut RequestHeader, client: &Client) -> ControlFlow<Answer> {
        match self.0.on_request(&mut Request::new(head, client.address, client.tls)) {
            Verdict::GoOn => ControlFlow::Continue(()),
            Verdict::Answer(Reply { status, .. }) if !(200..=599).contains(&status.as_u16()) => {
                ControlFlow::Break(Answer::Refuse(Refusal::Internal))
            }
            Verdict::Answer(Reply { status, mut headers, body }) => {
                headers.retain(|(name, _)| !custom::OF_THE_CONNECTION.contains(name));
                let has_none = [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED];
                let body = if has_none.contains(&status) { Bytes::new() } else { body };
                ControlFlow::Break(Answer::Reply { status, headers, body })
            }
        }
    }

    fn on_forward(&self, head: &mut RequestHeader) -> ControlFlow<Refusal> {
        self.0.on_forward(&mut Request::new(head, None, false));
        ControlFlow::Continue(())
    }

    fn on_response(&self, head: &mut ResponseHeader, request: &RequestHeader) {
        self.0.on_response(&mut Response::new(head), &Request::sent(request));
    }
}
