//! What the crate does, seen from outside. (`conformance.rs` has the promises of the HAL traits, `loom.rs` the orderings.)
#![cfg(all(feature = "std", feature = "fake", not(loom)))]

mod dma;
mod fake;
mod host;
mod regs;
mod segments;
mod sync;
mod wait;
