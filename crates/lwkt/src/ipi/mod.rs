//! IPI queues: a function runs on another CPU, in the order in which it was sent, without a lock.
//!
//! Per-CPU data is touched by its CPU only; who wants something done to it sends a closure there. This module needs
//! nothing but [`Cpus`](dfly_hal::Cpus), and works without the scheduler:
//!
//! ```
//! use dfly_hal::{CpuId, host::HostCpus};
//! use dfly_lwkt::ipi::IpiQueues;
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering::*};
//!
//! let cpus = Arc::new(HostCpus::new(2));
//! let ipis = Arc::new(<IpiQueues<_>>::new(cpus.clone())?);
//! let answered = Arc::new(AtomicBool::new(false));
//!
//! let (there, ready) = (ipis.clone(), cpus.clone());
//! let done = answered.clone();
//! let other = std::thread::spawn(move || {
//!     let cpu = ready.attach(CpuId(1)).unwrap();
//!     there.start().unwrap();
//!     while !done.load(Acquire) {
//!         if cpu.take_ipi() {
//!             there.drain(); // what a kernel's IPI handler does
//!         }
//!         std::hint::spin_loop();
//!     }
//! });
//!
//! let _boot = cpus.attach(CpuId(0))?;
//! ipis.start()?;
//! let flag = answered.clone();
//! let ticket = ipis.send(CpuId(1), move |cx| {
//!     assert_eq!((cx.cpu(), cx.from()), (CpuId(1), CpuId(0)));
//!     flag.store(true, Release);
//! })?;
//! # let _ = ticket;
//! other.join().unwrap();
//! assert!(answered.load(Acquire));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | DragonFly | here |
//! |---|---|
//! | `lwkt_send_ipiq3`, `..._passive`, `..._mask` | [`send`](IpiQueues::send), [`send_passive`](IpiQueues::send_passive), [`send_mask`](IpiQueues::send_mask) |
//! | `lwkt_process_ipiq`, the check in `hardclock` | [`drain`](IpiQueues::drain), [`tick`](IpiQueues::tick) |
//! | `lwkt_wait_ipiq(gd, seq)` | [`wait`](IpiQueues::wait) for a [`Ticket`] |
//! | `lwkt_cpusync_interlock` .. `_deinterlock` | [`interlocked`](IpiQueues::interlocked) |
//! | `lwkt_cpusync_simple`, `_quick` | [`run_together`](IpiQueues::run_together), [`run_on`](IpiQueues::run_on) |
//! | `smp_active_mask` | [`start`](IpiQueues::start), [`stop`](IpiQueues::stop), [`online`](IpiQueues::online) |
//! | `gd_ipimask` and `gd_npoll` | one word: a bit for each sender, and the bit KICK |
//! | `ipiq_count`, `ipiq_passive`, `ipiq_fifofull`, .. | [`IpiStats`] |
//!
//! | | alloc | waits | from an interrupt | from a callback |
//! |---|---|---|---|---|
//! | [`IpiQueues::new`] | yes | no | no | no |
//! | `send`, `send_passive`, `send_mask` | no | spins while the queue is full | yes | yes |
//! | `drain`, `tick` | no | while another CPU has this one stopped | yes | yes, later |
//! | `wait`, `run_on`, `run_together`, `interlocked` | no | spins, draining | no | no, an error |
//! | [`CpuMask`], [`AtomicCpuMask`], `stats` | no | no | yes | yes |
//!
//! The orderings, and what each protects, are in DESIGN.md, part "IPI queues".

mod cx;
mod error;
mod mask;
mod queues;
mod raw;
mod sync;

pub use cx::IrqCx;
pub use error::{SendError, SetupError, SyncError};
pub use mask::{AtomicCpuMask, CpuMask, Iter, MAX_CPUS};
pub use queues::{IpiQueues, IpiStats, Ticket};
