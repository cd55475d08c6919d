//! The driver over the model, on the HAL's fake machine: which bounces, poisons, scatters and counts.
// Not under Miri: the many small images of this suite take an hour there; `host/lend.rs` has the ways of memory.
#![cfg(not(miri))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attach;
mod bench;
mod faults;
mod hotplug;
mod interrupts;
mod io;
mod pass;
mod reader;
