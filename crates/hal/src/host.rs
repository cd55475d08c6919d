//! The host implementation, under `std`: a process is a machine.
//!
//! | concern | here |
//! |---|---|
//! | [`Dma`](crate::dma::Dma) | [`HostDma`]: the process's memory; a device's address is the CPU's |
//! | [`Clock`](crate::Clock) | [`HostClock`]: the operating system's monotonic clock, and a thread for timers |
//! | [`Cpus`](crate::Cpus) | [`HostCpus`]: threads that say which CPU they are |
//! | [`Wait`](crate::Wait) | [`ThreadWait`](crate::ThreadWait): parks the thread |

mod clock;
mod cpus;
mod dma;

pub use clock::{HostClock, now};
pub use cpus::{AttachError, HostCpu, HostCpus};
pub use dma::HostDma;
