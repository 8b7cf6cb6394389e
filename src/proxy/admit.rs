//! May they come in? What a route asks of a request before anything else is done for it, in order.
//!
//! What is asked for takes part in a reload like all else, but what it knows outlives one: see [`Lasting`].

use std::ops::ControlFlow;
use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::exchange::Exchange;
use crate::answer::Refusal;
use crate::auth::{Asked, Gate, Lasting};
use crate::config::{self, Config};
use crate::files::Unusable;
use crate::filter::Answer;

/// What each route asks, in their order; `None` is nothing. Made before a snapshot, because it can fail.
pub struct Admissions(pub(super) Vec<Option<Arc<Admission>>>);

impl Admissions {
    /// What the routes of a configuration ask.
    pub fn new(config: &Config, lasting: &Lasting) -> Result<Self, Unusable> {
        let all = config.routes.iter().map(|route| Admission::of(route, lasting));
        all.collect::<Result<_, _>>().map(Self)
    }
}

/// What one route asks.
pub struct Admission {
    gate: Option<Gate>,
}

impl Admission {
    fn of(route: &config::Route, lasting: &Lasting) -> Result<Option<Arc<Self>>, Unusable> {
        let gate = route.auth.as_ref().map(|auth| Gate::new(auth, lasting)).transpose()?;
        Ok(gate.map(|gate| Arc::new(Self { gate: Some(gate) })))
    }
}

impl Exchange {
    /// Asks what the route asks of whoever sends this request.
    pub(super) async fn admit(&mut self, session: &mut Session) -> ControlFlow<Answer> {
        let Some(admission) = self.plan.as_ref().and_then(|plan| plan.admission.clone()) else {
            return ControlFlow::Continue(());
        };
        match self.identify(&admission, session).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(Answer::Refuse(refusal)),
        }
    }

    async fn identify(&mut self, admission: &Admission, session: &mut Session) -> Result<(), Refusal> {
        let Some(gate) = &admission.gate else { return Ok(()) };
        let head = session.req_header();
        let asked = Asked {
            headers: &head.headers,
            query: head.uri.query(),
            method: &head.method,
            route: self.plan.as_ref().map_or("", |plan| &plan.name),
            address: self.sender.client,
            now: Timestamp::now(),
        };
        let identity = gate.identify(&asked).await?;
        // Here too, and not only in what is sent on: so that the cache sees what the backend sees.
        gate.introduce(identity.as_ref(), session.req_header_mut());
        self.identity = identity.map(Arc::new);
        Ok(())
    }

    /// Tells the backend who it is. Here nothing that the client says of its connection can take it away again.
    pub(super) fn introduce(&self, head: &mut RequestHeader) {
        let gate = self.plan.as_ref().and_then(|plan| plan.admission.as_ref()?.gate.as_ref());
        if let (Some(gate), Some(identity)) = (gate, &self.identity) {
            gate.introduce(Some(identity), head);
        }
    }

    /// Whether whoever got this far had to show credentials.
    pub(super) fn is_guarded(&self) -> bool {
        let admission = self.plan.as_ref().and_then(|plan| plan.admission.as_ref());
        admission.is_some_and(|admission| admission.gate.is_some())
    }

    /// What a client whose credentials are not good is asked for.
    pub(super) fn challenge(&self) -> Option<HeaderValue> {
        self.plan.as_ref()?.admission.as_ref()?.gate.as_ref().map(Gate::challenge)
    }
}
