//! A fleet of BMCs that behave: power takes time, boot overrides are consumed, tasks run, drives hold bytes.
//!
//! One listener simulates any number of BMCs: every address of 127.0.0.0/8 is local, and a BMC is told apart by the address it was
//! called on. The same listener serves the admin API on every address that is no BMC's.

mod admin;
mod auth;
mod drive;
mod faults;
mod fleet;
mod http;
mod machine;
mod management;
mod patch;
mod post;
mod profile;
mod resources;
mod response;
mod tree;
mod webhook;

pub use drive::{Drive, EraseBehaviour};
pub use faults::{Action, Rule};
pub use fleet::{Fleet, FleetConfig, MachineConfig};
pub use http::{Serving, serve};
pub use machine::{Knobs, Machine, OnBoot, Timing, Write};
pub use management::CertificateKind;
pub use profile::{PROFILES, Profile};
pub use tree::Tree;
