//! What a callback knows.

use core::fmt;
use core::marker::PhantomData;

use dfly_hal::CpuId;

use super::error::SendError;
use super::queues::{Post, Ticket, Urgency};
use super::raw::Message;

/// The context of code that runs as an interrupt does, on its own CPU and with every thread of the CPU below it: it can
/// send, and it cannot wait. There is no way from here to a [`Wait`](dfly_hal::Wait).
pub struct IrqCx<'a> {
    post: &'a dyn Post,
    cpu: CpuId,
    from: CpuId,
    /// It is its CPU's, and not to be kept.
    _here: PhantomData<*mut ()>,
}

impl<'a> IrqCx<'a> {
    pub(super) fn new(post: &'a dyn Post, cpu: CpuId, from: CpuId) -> Self {
        Self { post, cpu, from, _here: PhantomData }
    }

    /// The CPU that the callback runs on.
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }

    /// The CPU that sent it.
    pub fn from(&self) -> CpuId {
        self.from
    }

    /// As [`IpiQueues::send`](super::IpiQueues::send), through the queues that brought the callback here.
    pub fn send(&self, to: CpuId, f: impl FnOnce(&IrqCx<'_>) + Send + 'static) -> Result<Ticket, SendError> {
        self.post.post(to, Message::new(f), Urgency::Active)
    }

    /// As [`IpiQueues::send_passive`](super::IpiQueues::send_passive), through the queues that brought the callback here.
    pub fn send_passive(
        &self,
        to: CpuId,
        f: impl FnOnce(&IrqCx<'_>) + Send + 'static,
    ) -> Result<Ticket, SendError> {
        self.post.post(to, Message::new(f), Urgency::Passive)
    }

    pub(super) fn post(&self) -> &'a dyn Post {
        self.post
    }
}

impl fmt::Debug for IrqCx<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqCx").field("cpu", &self.cpu).field("from", &self.from).finish()
    }
}
