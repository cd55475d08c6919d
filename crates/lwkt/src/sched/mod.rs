//! What runs threads. From below: `link`, `wake` and `run_queue` move nodes of any type; `arch` switches stacks; a
//! `thread` is a slot, `cpu` goes from one to the next, `scheduler` and `cx` are what users see.

mod arch;
mod cpu;
mod cx;
mod error;
mod handle;
#[cfg(all(feature = "std", not(loom)))]
pub mod host;
mod info;
mod link;
mod run_queue;
mod scheduler;
mod seen;
mod stack_size;
mod thread;
mod wake;

pub use cx::Cx;
pub use error::{ConfigError, JoinError, RunError, SpawnError};
pub use handle::Handle;
pub use info::{CpuStats, ThreadId, ThreadInfo, ThreadState};
pub use scheduler::{Scheduler, current};
