//! The driver over the model, on the HAL's fake machine: which bounces, poisons, scatters and counts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attach;
mod bench;
mod broken;
mod interrupts;
mod io;
