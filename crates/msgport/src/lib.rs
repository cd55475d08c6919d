//! The owned intrusive message of the dfly crates: queues, pools, completions.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, loom))]
extern crate std;

mod body;
#[expect(unsafe_code, reason = "the one place where ownership of nodes is made of pointers")]
mod carrier;
mod completions;
mod pool;

pub use body::{Body, Hook, HookRef, Plain, Sink, SinkRef};
pub use carrier::{Family, Fifo, Handle, Job, Own, Pending};
pub use completions::Completions;
pub use pool::Pool;

/// An owned first-in-first-out queue of jobs. Dropping it completes them as orphaned.
pub type List<T> = Fifo<Job<T>>;
/// An owned first-in-first-out queue of messages that came back. Dropping it sends them home.
pub type Returned<T> = Fifo<Own<T>>;
