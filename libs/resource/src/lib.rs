//! The standard methods over records: get, list, create, update with a field mask, delete, watch. Each service adds its own rules.

mod mask;
mod methods;
mod watch;

pub use mask::Mask;
pub use methods::{Context, Kind, Page, create, delete, fault_of, get, list, request, update};
pub use watch::{Event, follow, watch};
