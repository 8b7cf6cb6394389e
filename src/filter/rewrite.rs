//! What does the backend call it? Changes the path and the Host field of a request.
//!
//! The path is normalised before a prefix is taken off or a pattern compared: the route was found by the normalised path, so
//! only that one is sure to begin with the prefix. A request that is not rewritten keeps its target byte for byte.

use std::ops::ControlFlow;

use http::header::HOST;
use http::{HeaderValue, Uri};
use pingora::http::RequestHeader;

use super::Filter;
use crate::answer::Refusal;
use crate::config;
use crate::config::{Substitution, Unfit};
use crate::path;

/// Rewrites the target and the Host field.
pub(super) struct Rewrite {
    strip: String,
    add: String,
    substitution: Option<Substitution>,
    host: Option<HeaderValue>,
}

impl Rewrite {
    /// `None` when there is nothing to rewrite.
    pub(super) fn new(rewrite: &config::Rewrite) -> Option<Self> {
        let prefix = |prefix: &Option<String>| prefix.as_deref().unwrap_or("").trim_end_matches('/').to_owned();
        (*rewrite != config::Rewrite::default()).then(|| Self {
            strip: prefix(&rewrite.strip_prefix),
            add: prefix(&rewrite.add_prefix),
            substitution: rewrite.substitution.clone(),
            host: rewrite.host.clone(),
        })
    }

    /// The new target, or `None` when it stays as it is.
    fn target(&self, uri: &Uri) -> Result<Option<String>, Refusal> {
        let prefixes = !self.strip.is_empty() || !self.add.is_empty();
        if !prefixes && self.substitution.is_none() {
            return Ok(None);
        }
        let Ok(path) = path::normalise(uri.path()) else { return Ok(None) };
        if path == "*" {
            // It means the server as a whole, and no path of it.
            return Ok(None);
        }
        let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
        let path = match &self.substitution {
            Some(substitution) => substitution.apply(&path).transpose().map_err(refusal)?,
            None => Some(self.between_prefixes(&path)),
        };
        Ok(path.map(|path| path + &query))
    }

    fn between_prefixes(&self, path: &str) -> String {
        let rest = match path.strip_prefix(self.strip.as_str()) {
            // Only on a segment border: `/v1` is taken off `/v1/x`, and left on `/v1x`.
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            _ => path,
        };
        let slash = if rest.is_empty() { "/" } else { "" };
        format!("{}{rest}{slash}", self.add)
    }
}

fn refusal(unfit: Unfit) -> Refusal {
    match unfit {
        Unfit::NoPath => Refusal::BadTarget,
        Unfit::TooLong => Refusal::TargetTooLong,
    }
}

impl Filter for Rewrite {
    fn on_forward(&self, head: &mut RequestHeader) -> ControlFlow<Refusal> {
        let target = match self.target(&head.uri) {
            Ok(target) => target,
            Err(refusal) => return ControlFlow::Break(refusal),
        };
        if let Some(target) = target {
            // Over HTTP/2 the URI has an authority too. It stays: Pingora brings it in line with the Host field.
            let mut parts = head.uri.clone().into_parts();
            let Ok(target) = target.parse() else { return ControlFlow::Break(Refusal::TargetTooLong) };
            parts.path_and_query = Some(target);
            match Uri::from_parts(parts) {
                Ok(uri) => head.set_uri(uri),
                Err(_) => return ControlFlow::Break(Refusal::BadTarget),
            }
        }
        if let Some(host) = &self.host {
            // A full header map leaves the head as it was.
            let _ = head.insert_header(HOST, host.clone());
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(strip: &str, add: &str, target: &str) -> String {
        let some = |prefix: &str| (!prefix.is_empty()).then(|| prefix.to_owned());
        let rewrite =
            config::Rewrite { strip_prefix: some(strip), add_prefix: some(add), ..config::Rewrite::default() };
        let mut head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        let filter = Rewrite::new(&rewrite).unwrap();
        assert!(filter.on_forward(&mut head).is_continue());
        head.uri.to_string()
    }

    #[test]
    fn a_prefix_is_taken_off_on_a_segment_border_only() {
        assert_eq!(rewritten("/v1", "", "/v1/a?b=c"), "/a?b=c");
        assert_eq!(rewritten("/v1", "", "/v1"), "/");
        assert_eq!(rewritten("/v1", "", "/v1x/a"), "/v1x/a");
        assert_eq!(rewritten("/v1/", "/api/", "/v1/a"), "/api/a");
        assert_eq!(rewritten("", "/api", "/a"), "/api/a");
    }

    #[test]
    fn the_server_as_a_whole_has_no_prefix() {
        assert_eq!(rewritten("", "/api", "*"), "*");
    }

    #[test]
    fn a_target_that_would_be_too_long_is_refused() {
        let rewrite = config::Rewrite { add_prefix: Some("/api".to_owned()), ..config::Rewrite::default() };
        let target = format!("/a?{}", "b".repeat(65_530));
        let mut head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        let filter = Rewrite::new(&rewrite).unwrap();
        assert_eq!(filter.on_forward(&mut head), ControlFlow::Break(Refusal::TargetTooLong));
    }

    #[test]
    fn dot_segments_do_not_hide_a_prefix() {
        assert_eq!(rewritten("/v1", "", "/x/../v1/a"), "/a");
        assert_eq!(rewritten("/v1", "", "/v1/%2e%2e/b"), "/b");
    }
}
