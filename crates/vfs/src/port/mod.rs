//! A file system behind a port: an [`FsServer`] runs it in threads of its own, and a [`PortFs`] is the file system for
//! everybody else.

mod call;
mod client;
mod server;

pub use client::PortFs;
pub use server::FsServer;

use alloc::sync::Arc;
use core::mem;

use dfly_msgport::{Job, Message, Own, Request, SpinPort};

use crate::NodeId;
use call::VfsCall;

/// The most bytes of a file that one message carries.
const PIECE_BYTES: usize = 64 << 10;
/// The most entries of a directory that one message carries.
const ENTRIES_MAX: usize = 256;

/// What server and client have in common.
struct Shared {
    port: SpinPort<VfsCall>,
    /// The messages that nobody uses, each in a slot. Who takes a slot has one of so many calls; the slot comes back when
    /// the call is over, also if its caller has gone long before.
    slots: SpinPort<Message<Idle>>,
    root: NodeId,
}

/// The message in a slot; made when it is first wanted.
type Idle = Option<Own<VfsCall>>;

impl Shared {
    fn new(root: NodeId, calls_max: usize) -> Arc<Self> {
        let shared = Self { port: SpinPort::new(), slots: SpinPort::new(), root };
        // The end of the last receiver would close the slots; this one never ends.
        mem::forget(shared.slots.receiver());
        for _ in 0..calls_max.max(1) {
            Own::with(None).post(&shared.slots);
        }
        Arc::new(shared)
    }
}

/// A slot in somebody's hand. Dropping it puts it back.
struct Slot {
    job: Option<Request<Idle>>,
    shared: Arc<Shared>,
}

impl Slot {
    fn take(&mut self) -> Idle {
        self.job.as_mut().and_then(|job| job.take())
    }

    fn put(&mut self, call: Own<VfsCall>) {
        if let Some(job) = &mut self.job {
            ***job = Some(call);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            Job::forward(job, &self.shared.slots);
        }
    }
}

#[cfg(test)]
mod tests;
