//! All five services in one process, simulated machines that boot the agent, the demonstration, and the command line.

pub mod cli;
pub mod client;
pub mod demo;
pub mod json;
pub mod manifest;
pub mod simulate;
pub mod stack;
