//! Is there a page for this error? The route's files, in the form that the client reads.
//!
//! The files are followed: a change counts at once, and one that cannot be used leaves the page that was there.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;

use super::accept::Accept;
use crate::config::{self, PageKind, Statuses, read_page};
use crate::files::{Followed, Library, Unusable};

/// The pages of a route.
pub struct ErrorPages {
    pages: Vec<(Statuses, Vec<Page>)>,
    of_backends: bool,
}

struct Page {
    kind: PageKind,
    file: Arc<Followed<Bytes>>,
}

impl ErrorPages {
    /// Follows the files of a route.
    pub fn new(config: &config::ErrorPages, files: &Library) -> Result<Self, Unusable> {
        let page = |page: &config::ErrorPage| Ok(Page { kind: page.kind, file: files.open(&page.path, read_page)? });
        let all = |(statuses, pages): &(Statuses, Vec<_>)| {
            Ok((*statuses, pages.iter().map(page).collect::<Result<_, Unusable>>()?))
        };
        Ok(Self { pages: config.pages.iter().map(all).collect::<Result<_, _>>()?, of_backends: config.of_backends })
    }

    /// Whether they take the place of what backends say.
    pub fn are_of_backends(&self) -> bool {
        self.of_backends
    }

    /// The page that a client who reads this gets, and of which type it is. Of those that it reads alike it gets the one that
    /// is named first; a page for just this status comes before one for all like it.
    pub fn page(&self, status: StatusCode, accept: &Accept) -> Option<(&'static str, Bytes)> {
        let held = self.pages.iter().filter(|(statuses, _)| statuses.hold(status.as_u16()));
        let best = held.into_iter().find_map(|(_, pages)| {
            let wanted = |page: &&Page| accept.quality(page.kind.media_type());
            // `max_by_key` would take the last of several.
            pages.iter().rev().max_by_key(wanted).filter(|page| wanted(page) > 0)
        })?;
        Some((best.kind.content_type(), Bytes::clone(&best.file.now())))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT;

    use super::*;
    use crate::config::ErrorPage;

    #[test]
    fn the_page_is_for_the_status_and_in_the_form_that_is_wanted_most() {
        let folder = tempfile::tempdir().unwrap();
        let page = |name: &str, kind| {
            let path = folder.path().join(name);
            std::fs::write(&path, name).unwrap();
            ErrorPage { path, kind }
        };
        let config = config::ErrorPages {
            pages: vec![
                (Statuses::Exact(404), vec![page("404.html", PageKind::Html)]),
                (Statuses::Class(4), vec![page("4xx.json", PageKind::Json), page("4xx.txt", PageKind::Plain)]),
            ],
            of_backends: false,
        };
        let pages = ErrorPages::new(&config, &Library::default()).unwrap();
        for (status, accept, expected) in [
            (404, Some("text/html"), Some("404.html")),
            (404, None, Some("404.html")),
            (404, Some("application/json"), Some("4xx.json")),
            (403, None, Some("4xx.json")),
            (403, Some("*/*"), Some("4xx.json")),
            (403, Some("application/json;q=0.5, text/plain;q=0.6"), Some("4xx.txt")),
            (403, Some("text/plain, application/json;q=0"), Some("4xx.txt")),
            (403, Some("text/html"), None),
            (503, None, None),
        ] {
            let headers = accept.map(|accept| (ACCEPT, accept.parse().unwrap())).into_iter().collect::<HeaderMap>();
            let found = pages.page(StatusCode::from_u16(status).unwrap(), &Accept::of(&headers));
            assert_eq!(found.map(|(_, page)| page), expected.map(Bytes::from), "{status} {accept:?}");
        }
    }
}
