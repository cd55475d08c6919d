//! [`Bio`]: an idle block request in its originator's hand.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use dfly_hal::{Instant, Wait, block_on};
use dfly_msgport::{Own, Pending, Pool, Port, SinkRef};

use crate::body::{BioBody, BioKey, Durable, Op, Priority};
use crate::{BioError, BioJob, BlockDevice, Bytes, Payload, ReadTarget, Status};

/// An idle block request: prepare it, send it, get it back, look at the status, take the memory.
///
/// It is one pointer to a node that is used again and again; preparing and sending allocate nothing. Preparing drops
/// the memory that the last use left, so [`take`](Self::take) it first. Never blocks but in [`Self::call`].
#[repr(transparent)]
pub struct Bio(pub(crate) Own<BioBody>);

impl Bio {
    /// A request with a node of its own. The only call here that allocates; a [`BioPool`] makes many at once.
    #[expect(clippy::new_without_default, reason = "it allocates")]
    pub fn new() -> Self {
        Self(Own::new(BioBody::new()))
    }

    fn body(&self) -> &BioBody {
        &self.0
    }

    pub(crate) fn body_mut(&mut self) -> &mut BioBody {
        self.0.body_mut(BioKey(()))
    }

    /// Prepares a read of as many bytes as `into` has, from byte `at` on.
    pub fn read(&mut self, at: u64, into: impl ReadTarget) -> &mut Self {
        let data: Payload = into.into();
        self.prepare(Op::Read, at, data.bytes() as u64, data)
    }

    /// Prepares a write of all of `data` from byte `at` on.
    pub fn write(&mut self, at: u64, data: impl Into<Payload>) -> &mut Self {
        let data = data.into();
        self.prepare(Op::Write, at, data.bytes() as u64, data)
    }

    /// Prepares a flush: what completed before is durable when it completes.
    pub fn flush(&mut self) -> &mut Self {
        self.prepare(Op::Flush, 0, 0, Payload::None)
    }

    /// Prepares a discard of `len` bytes from `at` on.
    pub fn discard(&mut self, at: u64, len: u64) -> &mut Self {
        self.prepare(Op::Discard, at, len, Payload::None)
    }

    /// Prepares writing `len` zeroes from `at` on, without memory.
    pub fn write_zeroes(&mut self, at: u64, len: u64) -> &mut Self {
        self.prepare(Op::WriteZeroes, at, len, Payload::None)
    }

    fn prepare(&mut self, op: Op, at: u64, len: u64, data: Payload) -> &mut Self {
        self.body_mut().prepare(op, at, len, data);
        self
    }

    /// Asks that the prepared write be durable when it completes (FUA). Meaningless for other operations.
    pub fn fua(&mut self) -> &mut Self {
        self.body_mut().durable = Durable::Now;
        self
    }

    /// When the driver gives up on the prepared request. Without one, the driver's own limit holds.
    pub fn deadline(&mut self, at: Instant) -> &mut Self {
        self.body_mut().deadline = at;
        self
    }

    /// How urgent the prepared request is.
    pub fn priority(&mut self, p: Priority) -> &mut Self {
        self.body_mut().priority = p;
        self
    }

    /// A word of the originator's, carried along: which page this is, for a sink.
    pub fn set_tag(&mut self, tag: u64) -> &mut Self {
        self.body_mut().tag = tag;
        self
    }

    /// What was set by [`Self::set_tag`].
    pub fn tag(&self) -> u64 {
        self.body().tag
    }

    /// What it asks for.
    pub fn op(&self) -> Op {
        self.body().op
    }

    /// Where, in bytes.
    pub fn offset(&self) -> u64 {
        self.body().offset
    }

    /// How much, in bytes.
    pub fn len(&self) -> u64 {
        self.body().len
    }

    /// Whether it has no bytes to move.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How it ended; `Ok` before it was sent.
    pub fn status(&self) -> Status {
        self.body().status
    }

    /// How it ended, with what was asked.
    pub fn result(&self) -> Result<(), BioError> {
        let b = self.body();
        b.status.map_err(|failure| BioError { op: b.op, offset: b.offset, len: b.len, failure })
    }

    /// The bytes of its memory, run by run.
    pub fn bytes(&self) -> Bytes<'_> {
        self.body().data.bytes()
    }

    /// Takes the memory out. [`Payload::None`] if there is none, was taken, or was lost in the device.
    pub fn take(&mut self) -> Payload {
        self.body_mut().data.take()
    }

    /// [`Self::take`], for a request with a single buffer.
    pub fn take_buf(&mut self) -> Option<crate::Buf> {
        self.take().into_buf()
    }

    /// Ready to travel, to come back to a waiter.
    pub fn waitable(self) -> (BioJob, PendingBio) {
        let (job, pending) = self.0.waitable();
        (BioJob(job), PendingBio(pending))
    }

    /// Ready to travel, to come back to `sink`.
    pub fn send_to(self, sink: impl Into<SinkRef<BioBody>>) -> BioJob {
        BioJob(self.0.send_to(sink))
    }

    /// Ready to travel, with nobody waiting: its memory is dropped and it goes home when it is done.
    pub fn detached(self) -> BioJob {
        BioJob(self.0.detached())
    }

    /// Submits it alone. Overlap comes from starting several before waiting for the first.
    pub fn start(self, dev: &(impl BlockDevice + ?Sized)) -> PendingBio {
        let (job, pending) = self.waitable();
        dev.submit(job.into());
        pending
    }

    /// Submits it alone and waits until it is back. The driver keeps its deadline, so the wait has none.
    pub fn call(self, dev: &(impl BlockDevice + ?Sized), w: &mut (impl Wait + ?Sized)) -> Self {
        self.start(dev).wait(w)
    }
}

impl fmt::Debug for Bio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.body();
        f.debug_struct("Bio")
            .field("op", &b.op)
            .field("offset", &b.offset)
            .field("len", &b.len)
            .field("status", &b.status)
            .finish_non_exhaustive()
    }
}

impl From<Own<BioBody>> for Bio {
    fn from(own: Own<BioBody>) -> Self {
        Self(own)
    }
}

impl From<Bio> for Own<BioBody> {
    fn from(bio: Bio) -> Self {
        bio.0
    }
}

/// A future of the request that comes back; see [`dfly_msgport::Pending`].
///
/// Dropping it never blocks: the request goes home, with its memory, when the device lets go of it.
#[must_use = "dropping it gives the request up"]
#[derive(Debug)]
pub struct PendingBio(Pending<BioBody>);

impl PendingBio {
    /// Waits until the request is back. The driver keeps the deadline.
    pub fn wait(mut self, w: &mut (impl Wait + ?Sized)) -> Bio {
        loop {
            // Without a deadline a waiter has no reason to give up; one that does is asked again.
            if let Ok(bio) = block_on(w, &mut self, None) {
                return bio;
            }
        }
    }

    /// Asks for the request back, and goes on waiting for it: it comes as [`Failure::Aborted`](crate::Failure::Aborted) if
    /// it still stands in `port`, else as the device ends it. See [`Pending::abort`].
    pub fn abort(&self, port: &(impl Port<BioBody> + ?Sized)) {
        self.0.abort(port);
    }

    /// The request, if it is back.
    pub fn try_take(self) -> Result<Bio, Self> {
        self.0.try_take().map(Bio).map_err(Self)
    }

    /// Whether it is back.
    pub fn is_done(&self) -> bool {
        self.0.is_done()
    }
}

impl Future for PendingBio {
    type Output = Bio;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Bio> {
        Pin::new(&mut self.0).poll(cx).map(Bio)
    }
}

/// A free list of requests, filled once: taking one out and letting it come home allocates nothing.
#[derive(Debug)]
pub struct BioPool(Pool<BioBody>);

impl BioPool {
    /// A pool of `capacity` requests. Allocates them all now.
    pub fn new(capacity: usize) -> Self {
        Self(Pool::new(capacity, BioBody::new))
    }

    /// A request, or `None` if all are under way. Dropping it brings it home. Never blocks.
    pub fn get(&self) -> Option<Bio> {
        self.0.get().map(Bio)
    }

    /// How many requests the pool was made with.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }
}
