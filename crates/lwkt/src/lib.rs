//! DragonFly BSD's light weight kernel threads: a scheduler for each CPU.
#![no_std]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod arch;
mod cpu;
mod cx;
mod error;
mod handle;
#[cfg(feature = "std")]
pub mod host;
mod info;
mod link;
mod platform;
mod run_queue;
mod scheduler;
mod spec;
mod stack;
mod thread;
mod wake;

pub use cx::Cx;
pub use error::{ConfigError, JoinError, RunError, SpawnError};
pub use handle::Handle;
pub use info::{CpuStats, ThreadId, ThreadInfo, ThreadState};
pub use platform::Platform;
pub use scheduler::{Scheduler, current};
pub use spec::{Config, Name, Priority, RunTime, Spec};
