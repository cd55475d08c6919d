//! The crate from outside: what a user of it sees.

mod adapters;
mod common;
mod device;
mod limits;
mod memory;
mod ownership;
mod split;
