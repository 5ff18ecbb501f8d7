//! Pure: what a BMC is, which addresses it may have, how power and erasure go on.

pub mod address;
pub mod bmc;
pub mod breaker;
pub mod erase;
pub mod power;
