//! Where are the backends? Names become addresses here, in the background, never on a request's way.

pub mod dns;
