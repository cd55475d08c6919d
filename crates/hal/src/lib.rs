//! What the embedding kernel supplies to the dfly crates, one small trait per concern.
#![no_std]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(any(feature = "std", feature = "fake", feature = "count", loom, test))]
extern crate std;

#[cfg(feature = "conformance")]
pub mod conformance;
mod cpu;
pub mod dma;
#[cfg(feature = "fake")]
pub mod fake;
mod forward;
#[cfg(feature = "std")]
pub mod host;
pub mod regs;
pub mod sync;
mod time;
mod wait;

use forward::forward;

pub use cpu::{CpuId, Cpus};
pub use time::{Clock, Instant, SleepUntil, sleep_until};
#[cfg(any(feature = "std", loom))]
pub use wait::ThreadWait;
pub use wait::{SpinWait, TimedOut, Wait, block_on};
