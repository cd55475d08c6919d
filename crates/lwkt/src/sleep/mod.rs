//! Sleep queues: a thread sleeps on an address, and whoever changes what is there wakes it. DragonFly's `tsleep` and
//! `wakeup`, whose hazard is a wake-up that comes between the look and the sleep. Here the type says that it cannot be
//! lost: an [`Interlock`] is obtained *before* the condition is tested, and is what one sleeps with.
//!
//! ```
//! # #[cfg(feature = "std")] {
//! use dfly_hal::{CpuId, ThreadWait};
//! use dfly_lwkt::sleep::Ident;
//! use dfly_lwkt::{Config, host::Machine};
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering::*};
//!
//! let machine = Machine::start(2, Config::default())?;
//! let full = Arc::new(AtomicBool::new(false));
//! let theirs = full.clone();
//! let reader = machine.scheduler().spawn(CpuId(0), "reader".into(), move |cx| {
//!     while !theirs.load(Acquire) {
//!         let sleep = cx.interlock(Ident::of(&*theirs));      // first this,
//!         if !theirs.load(Acquire) {                          // then the look,
//!             sleep.wait(None).unwrap();                      // then the sleep
//!         }
//!     }
//! })?;
//! full.store(true, Release);                                  // first the change,
//! machine.scheduler().wakeup(Ident::of(&*full));              // then the wake-up, from anywhere
//! reader.join(&mut ThreadWait::new())?;
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! A sleeper may be woken for no reason, so it looks again; [`Cx::sleep_while`] is that loop. A lock that guards the
//! condition is given back between the two steps: `let sleep = cx.interlock(id); drop(guard); sleep.wait(None)?`. What a
//! token guards is read through [`Interlock::cx`].
//!
//! | DragonFly | here |
//! |---|---|
//! | `tsleep_interlock`, `tsleep(.., PINTERLOCKED, .., timo)` | [`Cx::interlock`], [`Interlock::wait`] |
//! | `tsleep` in a loop, `ssleep`, `lksleep`, `mtxsleep`, `zsleep` | [`Cx::sleep_while`]; interlock, drop the guard, wait |
//! | `wakeup`, `wakeup_one` | [`Scheduler::wakeup`](crate::Scheduler::wakeup), [`wakeup_one`](crate::Scheduler::wakeup_one) |
//! | `wakeup_oncpu`, `wakeup_mycpu`, and `_one` of them | [`wakeup_on`](crate::Scheduler::wakeup_on), [`wakeup_one_on`](crate::Scheduler::wakeup_one_on) |
//! | `wakeup_domain`, `PDOMAIN_..` | [`Ident::in_domain`] |
//! | 0 or `EWOULDBLOCK` | `Ok` or [`TimedOut`](dfly_hal::TimedOut) |
//! | `slpque_cpumasks`, `gd_tsleep_hash` | a mask of CPUs for each of 256 buckets, lists of sleepers on each CPU |
//! | `wmesg`, `td_wchan` | [`ThreadInfo::sleeps_on`](crate::ThreadInfo::sleeps_on) |
//!
//! | | allocates | may block | from an interrupt | cost |
//! |---|---|---|---|---|
//! | [`Cx::interlock`] | no | no | no | a fence, and a read-modify-write if it is the first in its bucket |
//! | [`Interlock::wait`] | the clock's timer, if any | **yes** | no | as a wait that is woken |
//! | a wake-up, nobody sleeps | no | no | **yes** | a fence and four loads |
//! | a wake-up, sleepers on `k` CPUs | no | no | **yes** | another fence, and `k` to `2 k` read-modify-writes and at most `k` IPIs for any number of sleepers |
//!
//! A sleeper's own CPU does the rest when it next picks a thread: one read-modify-write for each of its sleepers, and no
//! memory of another CPU.
//!
//! [`Cx::interlock`]: crate::Cx::interlock
//! [`Cx::sleep_while`]: crate::Cx::sleep_while
//! [`Scheduler::wakeup`]: crate::Scheduler::wakeup
//! [`Scheduler::wakeup_one`]: crate::Scheduler::wakeup_one
//! [`Scheduler::wakeup_on`]: crate::Scheduler::wakeup_on
//! [`Scheduler::wakeup_one_on`]: crate::Scheduler::wakeup_one_on

mod ident;
mod interlock;
#[cfg(all(test, not(loom), feature = "std"))]
mod model;
mod queue;
mod request;
mod wakeup;

pub use ident::{Channel, Domain, Ident};
pub use interlock::Interlock;
pub(crate) use queue::{Left, Place, Sleeper, Sleepers};
pub(crate) use wakeup::Masks;

/// In how many lists a CPU has its sleepers, and how many masks there are.
const BUCKETS: usize = 1 << BUCKET_BITS;
/// A model is about two channels at the most.
const BUCKET_BITS: u32 = if cfg!(loom) { 1 } else { 8 };
