//! Who may come in? A route's `auth`, checked.

use std::path::PathBuf;

use http::HeaderName;

/// What is asked of those who come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// How they prove who they are.
    pub by: AuthBy,
    /// Whether the backend sees the proof too.
    pub keep: bool,
    /// What the backend is told of them, and in which fields.
    pub headers: Vec<(HeaderName, Attribute)>,
}

/// How somebody proves who they are.
#[derive(Clone, Debug, PartialEq)]
pub enum AuthBy {
    /// By a name and a password (RFC 7617) that are in this file, as `htpasswd` writes it.
    Basic(PathBuf),
}

/// What may be known of somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Who they are.
    Name,
}
