//! Judges of what was recorded. They know the promises, and nothing of the code that is to keep them.

pub mod evidence;
pub mod history;
pub mod watch;
