//! Who could serve a request?

pub mod discovery;
