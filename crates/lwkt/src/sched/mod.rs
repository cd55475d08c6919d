//! What runs threads. From below: `link`, `wake` and `run_queue` move nodes of any type; `arch` switches stacks; a
//! `thread` is a slot, `cpu` goes from one to the next, `scheduler` and `cx` are what users see.
#![deny(unsafe_code)]

#[expect(unsafe_code, reason = "switches stacks by hand")]
mod arch;
#[expect(unsafe_code, reason = "each CPU is the only one to touch its queues, and goes from stack to stack")]
mod cpu;
#[expect(unsafe_code, reason = "where a thread may be preempted")]
mod critical;
#[expect(unsafe_code, reason = "a context speaks for its thread")]
mod cx;
mod error;
mod handle;
#[cfg(all(feature = "std", not(loom)))]
#[expect(unsafe_code, reason = "it says which CPU the caller is")]
pub mod host;
mod info;
#[expect(unsafe_code, reason = "it says which CPU the caller is on")]
mod ipis;
#[expect(unsafe_code, reason = "pointers to what is never freed")]
pub(crate) mod link;
#[expect(unsafe_code, reason = "switches away from a thread for good")]
mod migrate;
#[cfg(all(own_stacks, unix, feature = "std", not(any(miri, loom))))]
#[expect(unsafe_code, reason = "handles a signal")]
mod overflow;
#[expect(unsafe_code, reason = "lends a CPU its value")]
mod per_cpu;
mod policy;
mod preempt;
#[expect(unsafe_code, reason = "as `link`, for a static")]
mod registry;
mod run_queue;
mod scheduler;
mod seen;
mod stack_size;
#[expect(unsafe_code, reason = "a slot belongs to one after the other")]
pub(crate) mod thread;
mod wake;

pub(crate) use cpu::Cpu;
pub use critical::Crit;
pub use cx::Cx;
pub use error::{ConfigError, JoinError, MigrateError, RunError, SpawnError};
pub use handle::Handle;
pub use info::{CpuStats, ThreadId, ThreadInfo, ThreadState};
pub use ipis::{Ipis, SchedulerCpus};
pub use migrate::Descheduled;
pub use per_cpu::PerCpu;
pub use policy::{Policy, ReadyThread};
#[cfg(not(loom))]
pub use preempt::enable_preemption;
pub use registry::{current, overflowed_at};
pub use scheduler::Scheduler;
