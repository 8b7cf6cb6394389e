//! Where else is it? Answers with a `Location`.

use std::ops::ControlFlow;

use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderValue, StatusCode};
use pingora::http::RequestHeader;

use super::{Answer, Client, Filter};
use crate::answer::Refusal;
use crate::config::Action;

/// Redirects every request.
pub(super) struct Redirect {
    to: String,
    status: StatusCode,
}

impl Redirect {
    /// `None` for routes that lead elsewhere.
    pub(super) fn new(action: &Action) -> Option<Self> {
        match action {
            Action::Redirect { to, status } => {
                Some(Self { to: to.clone(), status: StatusCode::from_u16(*status).ok()? })
            }
            Action::Upstream(_) | Action::Respond { .. } => None,
        }
    }
}

impl Filter for Redirect {
    fn on_request(&self, head: &mut RequestHeader, _client: &Client) -> ControlFlow<Answer> {
        let location = match self.to.strip_suffix("/*") {
            Some(base) => format!("{base}{}", head.uri.path_and_query().map_or("/", |target| target.as_str())),
            None => self.to.clone(),
        };
        ControlFlow::Break(match HeaderValue::from_str(&location) {
            Ok(location) => {
                Answer::Reply { status: self.status, headers: vec![(LOCATION, location)], body: Bytes::new() }
            }
            // The target of the request may hold bytes that no field value may.
            Err(_) => Answer::Refuse(Refusal::BadTarget),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(to: &str, target: &str) -> String {
        let filter = Redirect::new(&Action::Redirect { to: to.to_owned(), status: 308 }).unwrap();
        let mut head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        match filter.on_request(&mut head, &Client { address: None, tls: false }) {
            ControlFlow::Break(Answer::Reply { headers, .. }) => headers[0].1.to_str().unwrap().to_owned(),
            ControlFlow::Break(refused) => panic!("{refused:?}"),
            ControlFlow::Continue(()) => panic!("not redirected"),
        }
    }

    #[test]
    fn a_star_stands_for_the_path_and_the_query() {
        assert_eq!(location("https://new.example/*", "/a/b?c=d"), "https://new.example/a/b?c=d");
        assert_eq!(location("https://new.example/home", "/a/b?c=d"), "https://new.example/home");
    }
}
