//! DragonFly BSD's light weight kernel threads: a scheduler for each CPU.
#![no_std]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(any(feature = "std", loom))]
extern crate std;

pub mod ipi;
pub mod lock;
mod platform;
#[cfg(any(feature = "std", loom, all(target_arch = "x86_64", not(windows))))]
mod sched;
mod spec;

pub use platform::Platform;
#[cfg(any(feature = "std", loom, all(target_arch = "x86_64", not(windows))))]
pub use sched::*;
pub use spec::{Config, Name, Priority, RunTime, Spec};
