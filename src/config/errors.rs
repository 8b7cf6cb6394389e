//! Which pages do clients see when something goes wrong? A route's `errors`, checked.

use std::path::PathBuf;

use bytes::Bytes;

/// A page is read into memory, and sent for every refusal.
const PAGE_MAX: usize = 256 << 10;

/// The pages of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPages {
    /// For which statuses, and in which forms; the exact ones first.
    pub pages: Vec<(Statuses, Vec<ErrorPage>)>,
    /// Whether they take the place of what backends say with such a status.
    pub of_backends: bool,
}

/// Statuses that have a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statuses {
    /// Just this one.
    Exact(u16),
    /// All that begin with this digit.
    Class(u16),
}

impl Statuses {
    /// Whether this is one of them.
    pub fn hold(self, status: u16) -> bool {
        match self {
            Self::Exact(exact) => exact == status,
            Self::Class(first) => status / 100 == first,
        }
    }
}

/// A page in one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// Where it is; it is read again when it changes.
    pub path: PathBuf,
    /// What it is.
    pub kind: PageKind,
}

/// What a page is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// For people.
    Html,
    /// For programs.
    Json,
    /// For terminals.
    Plain,
}

impl PageKind {
    /// By the ending of a file.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let (_, ending) = path.rsplit_once('.')?;
        [("html", Self::Html), ("htm", Self::Html), ("json", Self::Json), ("txt", Self::Plain)]
            .into_iter()
            .find_map(|(known, kind)| ending.eq_ignore_ascii_case(known).then_some(kind))
    }

    /// As `Accept` names it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Html => "text/html",
            Self::Json => "application/json",
            Self::Plain => "text/plain",
        }
    }

    /// As `Content-Type` names it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Plain => "text/plain; charset=utf-8",
        }
    }
}

/// Makes a page of the bytes of its file.
pub fn read_page(bytes: &[u8]) -> Result<Bytes, String> {
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    if bytes.len() > PAGE_MAX {
        return Err(format!("it has {} bytes, and a page may have 256 KiB", bytes.len()));
    }
    std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    Ok(Bytes::copy_from_slice(bytes))
}
