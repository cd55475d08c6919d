//! The owned intrusive message of the dfly crates: what a block request, a file-system operation and a message to a
//! port have in common.
//!
//! A message is one node of memory that walks. At rest it is an [`Own`], in its originator's hand; sent, it is a
//! [`Job`] in a receiver's hand, who completes it, passes it on, queues it in a [`List`], or [splits](Job::split) it
//! into children. Completing hands it to the destination that the originator chose: a waiter ([`Pending`]), a
//! [`Sink`] such as the reply queue [`Completions`], a parent ([`Family`]), or nobody, and then it goes home to its
//! [`Pool`] or its box. Nothing is copied, counted or allocated on the way, and a queue cannot be full, because the
//! link is in the node.
//!
//! ```
//! use dfly_hal::{SpinWait, block_on};
//! use dfly_msgport::{Body, List, Pool};
//!
//! struct Square { x: u64, failed: bool }
//!
//! impl Body for Square {
//!     type Shared = ();               // what the children of a split share: it is never split
//!     type Key = ();                  // owns all it points to, so anybody may write to it
//!     fn orphaned(&mut self) { self.failed = true }
//! }
//!
//! let pool = Pool::new(8, || Square { x: 0, failed: false });
//! let mut queue = List::new();        // a device's queue
//!
//! let mut message = pool.get().ok_or("all under way")?;
//! message.x = 7;
//! let (job, pending) = message.waitable();
//! queue.push(job);
//!
//! // The device, whenever it is polled:
//! let mut device = || {
//!     if let Some(mut job) = queue.pop() {
//!         job.x *= job.x;
//!         job.complete();
//!     }
//! };
//! let message = block_on(&mut SpinWait::new(&mut device), pending, None)?;
//! assert_eq!((message.x, message.failed), (49, false));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | | allocates | may block | from an interrupt handler | stack |
//! |---|---|---|---|---|
//! | [`Own::new`], [`Pool::new`] | yes | no | no | flat |
//! | [`Own::detached`], [`waitable`](Own::waitable), [`send_to`](Own::send_to) | no | no | yes | flat |
//! | [`Fifo`]: push, pop, append | no | no | yes | flat |
//! | [`Job::complete`], dropping a `Job`, `Own`, `List` or `Family` | no | no | no: hooks, sinks and wakers run | flat, and what those use |
//! | [`Family::adopt`] | no | no | yes | flat |
//! | [`Pending`]: poll, `try_take`, drop | no | no (*) | no: drops wakers | flat |
//! | [`Pool::get`], [`Completions::drain`] | no | no: short lock | no: short lock | flat |
//! | [`Completions::wait`], `block_on` of a `Pending` | no | **yes** | no | the waiter's |
//!
//! (*) It spins while the completer moves a waker out, which is three instructions with preemption off.
//!
//! The rules for what is dropped too early: a [`Job`] completes as [orphaned](Body::orphaned), so nobody waits for
//! ever; a [`Pending`] lets its node go home when the receiver is done with it; a [`Pool`] lets its nodes free
//! themselves. A handle that is *forgotten* (`mem::forget`) leaks its node, and a forgotten job hangs its waiter; that
//! is all.
//!
//! The typed ports of DragonFly (send, call, reply, forward, abort) will stand on this and come with their own version
//! of the crate. How the carrier works inside, and what its tests prove, is in `DESIGN.md`.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

extern crate alloc;

mod body;
#[expect(unsafe_code, reason = "the one place where ownership of nodes is made of pointers")]
mod carrier;
mod completions;
mod pool;

pub use body::{Body, Hook, HookRef, Plain, Sink, SinkRef};
pub use carrier::{Family, Fifo, Handle, Job, Own, Pending};
pub use completions::Completions;
pub use pool::Pool;

/// An owned first-in-first-out queue of jobs. Dropping it completes them as [orphaned](Body::orphaned).
pub type List<T> = Fifo<Job<T>>;

/// An owned first-in-first-out queue of messages that came back. Dropping it sends them home.
pub type Returned<T> = Fifo<Own<T>>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
