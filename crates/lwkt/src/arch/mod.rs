//! How a CPU leaves one thread and goes on with another.
//!
//! A backend is a `Context`, where a suspended thread (or the idle caller of `Scheduler::run`) is kept, and `switch`.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::Context;
