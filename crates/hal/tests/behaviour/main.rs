//! What the crate does, seen from outside. (`conformance.rs` has the promises of the HAL traits, `loom.rs` the orderings.)
#![cfg(all(feature = "std", feature = "fake", not(loom)))]
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one promise, of the test's device, covers them all"
)]

mod dma;
mod fake;
mod host;
mod regs;
mod segments;
mod sync;
mod wait;
