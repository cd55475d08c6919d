//! Locks, and the `sync` facade that they are written over.
//!
//! | lock | for | waiter | while held |
//! |---|---|---|---|
//! | [`Lock`] | a few instructions | spins | its thread is not preempted |
//! | [`WaitLock`] | across I/O | blocks through [`Wait`](crate::Wait) | nothing is disabled |
//!
//! The facade ([`atomic`], [`cell`], [`hint`], [`Arc`]) is `core`'s and `alloc`'s own types, unless somebody watches:
//! under `--cfg loom` they are loom's, and a model checker explores the orderings; under the feature `count` the
//! atomics count what is done to them, and a test asserts the atomic operations that a path costs
//! (`sync::count`). Code written over the facade does not change for either. It must not rely on a facade type being
//! `core`'s, and statics need `not(loom)`, because loom's atomics have no `const` constructor.

mod facade;
mod lock;
mod preempt;
mod wait_lock;
#[doc(hidden)]
pub mod wait_queue;

#[cfg(all(feature = "count", not(loom)))]
pub mod count;

pub use facade::{Arc, atomic, cell, hint};
pub use lock::{Lock, LockGuard};
pub use preempt::{AlreadyRegistered, NoPreemption, PreemptionHooks, register_preemption};
pub use wait_lock::{Acquire, WaitGuard, WaitLock};
