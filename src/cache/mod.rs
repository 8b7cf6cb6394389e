//! DO WE KNOW THE ANSWER? What is kept of responses, where, and for how long.

pub mod disk;
