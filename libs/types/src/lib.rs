//! Words that every part of Ironyard shares: names, labels, hardware, secrets, time.
//!
//! No tonic, no sqlx, no reqwest here: a domain may depend on all of it.

pub mod agent_image;
pub mod hardware;
pub mod labels;
mod mac;
mod machine;
mod names;
mod resource;
pub mod sampling;
mod sanitization;
mod secret;
mod system_uuid;
mod time;

pub use mac::MacAddress;
pub use machine::{MachineIdentity, is_placeholder_serial};
pub use names::{Invalid, ResourceName, dns_label, random_fraction, random_hex, random_id, random_password, seed_ids, sha256_hex};
pub use resource::{Condition, ConditionStatus, Metadata, Reference, Waiting};
pub use sanitization::{Category, EraseCommand};
pub use secret::Secret;
pub use system_uuid::SystemUuid;
pub use time::{Clock, SystemClock, Timestamp};
