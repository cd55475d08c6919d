//! What the embedding kernel supplies to the dfly crates, one small trait per concern.
#![no_std]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(any(feature = "std", loom, test))]
extern crate std;

#[cfg(feature = "std")]
pub mod host;
pub mod sync;
mod time;
mod wait;

pub use time::{Clock, Instant};
#[cfg(feature = "std")]
pub use wait::ThreadWait;
pub use wait::{SpinWait, TimedOut, Wait, block_on};
