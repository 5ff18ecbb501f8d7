//! Whole-stack tests: all services, their real databases, the real simulator, generated clients.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod adoption;
mod apply;
mod bad_input;
mod checkers;
mod claims;
mod conformance;
mod console;
mod costs;
mod crash;
mod events;
mod faults;
mod five;
mod foreign;
mod gateway;
mod guards;
mod interrupted;
mod life;
mod parts;
mod replicas;
mod secrets;
mod seed;
mod simulation;
mod store;
mod sushy;
mod trace;
mod trust;
mod verbs;
mod watch;
mod wipes;
mod world;
