//! Which fields are set, added or removed? The `headers` of a route, for requests and responses.

use std::ops::ControlFlow;

use pingora::http::{RequestHeader, ResponseHeader};

use super::Filter;
use crate::answer::Refusal;
use crate::config::HeaderEdits;

/// Changes fields as a route says, in the order remove, set, add.
pub(super) struct Edits {
    request: HeaderEdits,
    response: HeaderEdits,
}

impl Edits {
    /// `None` when there is nothing to change.
    pub(super) fn new(request: &HeaderEdits, response: &HeaderEdits) -> Option<Self> {
        let idle = *request == HeaderEdits::default() && *response == HeaderEdits::default();
        (!idle).then(|| Self { request: request.clone(), response: response.clone() })
    }
}

/// Names and values were checked with the configuration, so the only error left is a full header map, which leaves the
/// head as it was.
macro_rules! apply {
    ($edits:expr, $head:expr) => {
        for name in &$edits.remove {
            $head.remove_header(name);
        }
        for (name, value) in &$edits.set {
            let _ = $head.insert_header(name.clone(), value.clone());
        }
        for (name, value) in &$edits.add {
            let _ = $head.append_header(name.clone(), value.clone());
        }
    };
}

impl Filter for Edits {
    fn on_forward(&self, head: &mut RequestHeader) -> ControlFlow<Refusal> {
        apply!(self.request, head);
        ControlFlow::Continue(())
    }

    fn on_response(&self, head: &mut ResponseHeader, _request: &RequestHeader) {
        apply!(self.response, head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn field(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn fields_are_removed_then_set_then_added() {
        let edits = HeaderEdits {
            set: vec![field("x-set", "new")],
            add: vec![field("x-set", "more"), field("x-gone", "back")],
            remove: vec![HeaderName::from_static("x-gone")],
        };
        let filter = Edits::new(&HeaderEdits::default(), &edits).unwrap();
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.append_header("x-set", "old").unwrap();
        head.append_header("x-set", "older").unwrap();
        head.append_header("x-gone", "gone").unwrap();

        filter.on_response(&mut head, &RequestHeader::build("GET", b"/", None).unwrap());

        let values = |name| head.headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("x-set"), ["new", "more"]);
        assert_eq!(values("x-gone"), ["back"]);
    }

    #[test]
    fn a_route_without_edits_has_no_filter() {
        assert!(Edits::new(&HeaderEdits::default(), &HeaderEdits::default()).is_none());
    }
}
