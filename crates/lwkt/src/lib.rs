//! DragonFly BSD's light weight kernel threads: a scheduler for each CPU, threads with their own stacks, and wakers that
//! an interrupt handler may use.
//!
//! A kernel implements [`Platform`] for its machine, makes a [`Scheduler`] of it, and lets each CPU
//! [`run`](Scheduler::run) it. A thread belongs to one CPU, which it leaves only by its own will. It runs until it yields,
//! waits or ends; only threads of an interrupt's priority preempt it. It waits with its [`Cx`], which is the family's [`Wait`](dfly_hal::Wait): whatever takes a
//! `&mut dyn Wait` (a file system, a driver) blocks such a thread by running others.
//!
//! ```
//! # #[cfg(feature = "std")] {
//! use core::time::Duration;
//! use dfly_hal::{CpuId, ThreadWait, block_on, sleep_until};
//! use dfly_lwkt::{Config, Priority, Spec, host::Machine};
//!
//! let machine = Machine::start(2, Config::default())?;         // two CPUs, which are host threads
//! let main = machine.scheduler().spawn(CpuId(0), "main".into(), |cx| {
//!     let spec = Spec::new("reaper").priority(Priority::INT_MED);
//!     let reaper = cx.scheduler().spawn(CpuId(1), spec, |cx| {
//!         let clock = cx.scheduler().platform();
//!         let soon = clock.now().saturating_add(Duration::from_millis(1));
//!         block_on(cx, sleep_until(clock, soon), None).unwrap();
//!     });
//!     reaper.unwrap().join(cx).unwrap();                       // blocks this thread, and its CPU runs others
//! })?;
//! main.join(&mut ThreadWait::new())?;                          // blocks this host thread
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! | | allocates | may block | from an interrupt handler | stack |
//! |---|---|---|---|---|
//! | [`Scheduler::new`] | yes, for good | no | no | small |
//! | [`Scheduler::run`] | no | until the stop, and see there | no | small; interrupts of an idle CPU are on it |
//! | [`Scheduler::spawn`] | yes | no: short lock | no | small |
//! | [`Scheduler::stop`] | no | no | no: wakes those who join | small |
//! | [`Cx::critical`], [`Cx::should_yield`] | no | no: see [`Crit`] for its end | no | small |
//! | [`Scheduler::ipi`], [`Scheduler::tick`] | no | no | **yes**, that is what they are for | what messages do |
//! | [`Scheduler::interrupt_exit`] | no | lets others run | where an interrupt ends | a wait, on the stack of the interrupted thread |
//! | [`Cx::migrate`], [`Cx::give_away`] | no | **yes** | no | as a wait |
//! | [`Descheduled::resume_on`] | no | no | yes | small |
//! | [`Cx::yield_now`], [`Wait`](dfly_hal::Wait) of a [`Cx`] | no | **yes** | no | some 200 bytes, and what is polled |
//! | [`Cx::hold`], [`Cx::hold_shared`] ([tokens](token)) | no | **yes**, if contended | no: [`IrqCx::try_hold`](ipi::IrqCx::try_hold) | some 200 bytes |
//! | [`Cx::try_hold`], [`Cx::try_hold_shared`], what holds lend | no | no | as above | small |
//! | [`PerCpu::with`] | no | no | no | small |
//! | a thread's waker: wake, clone, drop | no | no | **yes** | small |
//! | [`Cx::interlock`], [`Cx::sleep_while`] ([sleep queues](sleep)) | no | the latter | no | as a wait |
//! | [`Scheduler::wakeup`], [`wakeup_one`](Scheduler::wakeup_one) | no | no | **yes** | small |
//! | [`Scheduler::trace`] ([events](trace)) | no | no | yes | small |
//! | [`Scheduler::current`], [`current`], [`threads`](Scheduler::threads), [`cpu_stats`](Scheduler::cpu_stats) | no | no | yes | a [`ThreadInfo`] |
//!
//! What stands where:
//!
//! | | threads |
//! |---|---|
//! | x86_64, aarch64 and riscv64 with 64-bit pointers: bare metal, Linux and other System V hosts | on stacks of their own, switched by a dozen instructions or two |
//! | other hosts, with `std`; Miri and loom | an OS thread stands in for each |
//! | other bare metal | none yet: [`Platform`], [`Spec`], the [IPI queues](ipi) and the [locks](lock) |
//!
//! Threads on stacks of their own share the thread-locals of the OS thread that is their CPU, if there is one:
//! [`Scheduler::run`] says what follows from that.
//!
//! # Critical sections and short locks
//!
//! Whoever has a short lock ([`Lock`](dfly_hal::sync::Lock), [`Spinlock`](lock::Spinlock)) or a [`Crit`] keeps its CPU:
//! IPI messages and ticks wait until the outermost section ends. Who waits, yields or ends with one open panics, and is
//! named with the place of the section and its own; the compiler sees most of it before. For locks a kernel calls
//! [`enable_preemption`] once.
//!
//! On bare metal the interrupt entry saves what the interrupted code uses, as always, and runs on the stack that it finds.
//! A switch saves what a call preserves, and with floating point also those registers and how it rounds: so a kernel that
//! is built with it turns it on before threads run (`CPACR_EL1`, `mstatus.FS`), and saves the rest in its interrupt
//! entry. One that is built without it and turns it on for somebody saves all of it itself.
//!
//! A stack overflow ends the machine or the process before it has written to anything, where the [platform](Platform::stack)
//! has a guard page below the stack, as hosts have; [`overflowed_at`] names the thread. Where it has none the lowest words
//! are looked at when the thread switches, and then it panics: by then memory below the stack was written to, whosever it is.
//!
//! # Preemption
//!
//! After [`enable_preemption`] a thread whose priority [is an interrupt's](Priority::is_interrupt) runs as soon as it is
//! woken, on top of a less important thread of its CPU, never inside of a critical section or with a short lock held. The
//! other one keeps its tokens and goes on when that one waits, yields or ends. A kernel calls
//! [`Scheduler::interrupt_exit`] where its interrupts end, says in [`Platform::in_interrupt`] where nothing may switch, and
//! lets its clock [tick](Scheduler::tick), so that [`Cx::should_yield`] tells loops that compute of their equals. On a host it
//! happens where a section or a short lock ends, or at the wake.
//!
//! # Who runs next
//!
//! The most important thread that is ready, of equals that with the larger [sub-priority](Spec::sub_priority), of those the one
//! that came first; or whom a [`Policy`] names ([`Scheduler::with_policy`]). The scheduler checks each answer: a policy
//! that names a thread which runs, or is another CPU's, ends its CPU by a panic that names both, before anything happens.
//!
//! # Moving
//!
//! A thread goes to another CPU by [`Cx::migrate`], or is [given away](Cx::give_away) to somebody who says where it goes on.
//! Where threads share the thread-locals of their CPU's OS thread, a scheduler has to be [told](Config::threads_may_move)
//! that this is sound.
//!
//! # Features
//!
//! `std`, off by default: the [`host`] machine, and a panic ends its thread only, to be reported by [`Handle::join`].
//! Without it panics do not unwind, and the panic handler ends the machine.
//!
//! `trace`, off by default: the scheduler can write down [what it does](trace), event by event.
#![no_std]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(any(feature = "std", loom))]
extern crate std;

pub mod ipi;
pub mod lock;
mod platform;
#[cfg(any(feature = "std", loom, own_stacks))]
mod sched;
#[cfg(any(feature = "std", loom, own_stacks))]
pub mod sleep;
mod spec;
mod stack;
#[cfg(any(feature = "std", loom, own_stacks))]
pub mod token;
#[cfg(any(feature = "std", loom, own_stacks))]
pub mod trace;

pub use platform::Platform;
#[cfg(any(feature = "std", loom, own_stacks))]
pub use sched::*;
pub use spec::{Config, Name, Priority, RunTime, Spec};
pub use stack::StackMemory;

/// The example of the README is a test.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;
