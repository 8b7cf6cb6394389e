//! How is it? Probes, live requests and what a backend says of itself, and the one state that follows from them.

mod keeper;
mod ladder;
mod machine;
pub mod obey;
mod pace;
mod probe;
mod watch;
mod window;

pub use self::keeper::{Keeper, OnChange, Trial};
pub use self::ladder::{Ladder, Rung};
pub use self::machine::{Age, Consequence, Machine};
pub use self::pace::Pace;
pub use self::probe::{Paid, Probe, Speech, Toll};
pub use self::watch::watch;
pub use self::window::Window;
