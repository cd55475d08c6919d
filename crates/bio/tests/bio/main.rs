//! The crate from outside: what a user of it sees.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod abuse;
mod adapters;
mod common;
mod device;
mod limits;
mod memory;
mod ownership;
mod port;
mod split;
