//! Pure: claims, the order of a cleanup, how drives are wiped.

pub mod cleanup;
pub mod evidence;
pub mod sanitize;
pub mod server_claim;
