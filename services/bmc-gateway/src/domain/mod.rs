//! Pure: what a BMC is, which addresses it may have, how power, rotation and long work go on.

pub mod address;
pub mod bmc;
pub mod breaker;
pub mod console;
pub mod exclusion;
pub mod fair_queue;
pub mod job;
pub mod power;
pub mod rotation;
