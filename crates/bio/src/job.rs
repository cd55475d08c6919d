//! [`BioJob`]: a block request on its way, in a device's hand; [`JobList`]: a batch of them.

use core::fmt;

use dfly_hal::Instant;
use dfly_msgport::{HookRef, Job, List};

use crate::body::{BioBody, BioKey, Durable, Op, Priority};
use crate::{Bytes, BytesMut, Carver, Failure, Segments, Status};

/// A block request on its way. A device finishes it, remaps and forwards it, queues it, or carves it into children.
///
/// Dropped by a careless device it completes as [`Failure::Orphaned`]: no waiter hangs. Nothing here blocks or
/// allocates. [`Self::finish`] runs the hooks of the layers above and the originator's sink in the caller's context,
/// so never call it in an interrupt handler or with a lock held.
#[repr(transparent)]
pub struct BioJob(pub(crate) Job<BioBody>);

impl BioJob {
    fn body(&self) -> &BioBody {
        &self.0
    }

    fn body_mut(&mut self) -> &mut BioBody {
        self.0.body_mut(BioKey(()))
    }

    /// What is asked for.
    pub fn op(&self) -> Op {
        self.body().op
    }

    /// Where, in bytes from the start of the device that holds the job.
    pub fn offset(&self) -> u64 {
        self.body().offset
    }

    /// How much, in bytes. For reads and writes that [`Limits::admit_range`](crate::Limits::admit_range) lets pass, this
    /// is what the segments add up to.
    pub fn len(&self) -> u64 {
        self.body().len
    }

    /// Whether there are no bytes to move.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the write must be durable when it completes.
    pub fn is_fua(&self) -> bool {
        self.body().durable == Durable::Now
    }

    /// When the driver must have given it up, [`Instant::FAR_FUTURE`] if the originator does not say.
    pub fn deadline(&self) -> Instant {
        self.body().deadline
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.body().priority
    }

    /// How the layer below ended it; for hooks.
    pub fn status(&self) -> Status {
        self.body().status
    }

    /// What the layer whose hook runs gave to [`Self::intercept`].
    pub fn cookie(&self) -> u64 {
        self.body().cookie
    }

    /// The memory as contiguous runs, for mapping it.
    pub fn segments(&self) -> Segments<'_> {
        self.body().data.segments()
    }

    /// The bytes, run by run: what to write, or what was read.
    pub fn data(&self) -> Bytes<'_> {
        self.body().data.bytes()
    }

    /// The bytes of a read, to be filled. `None` for every other operation: the memory of a write comes back as it was,
    /// and may be read by others meanwhile.
    pub fn data_mut(&mut self) -> Option<BytesMut<'_>> {
        if self.op() != Op::Read {
            return None;
        }
        self.body_mut().data.bytes_mut()
    }

    /// Sends it on to offset `to` of a lower device. On its way back the offset is restored.
    ///
    /// # Errors
    /// [`Failure::TooDeep`] if [`MAX_DEPTH`](crate::MAX_DEPTH) layers did so already; the job is as it was.
    pub fn remap(&mut self, to: u64) -> Result<(), Failure> {
        self.body_mut().push_frame(to, 0, None)
    }

    /// As [`Self::remap`], and on its way back, before any layer above sees it, the job is given to `hook`, which
    /// finishes it again, forwards it again, or keeps it for a while. The hook finds `cookie` in [`Self::cookie`].
    ///
    /// # Errors
    /// As for [`Self::remap`].
    pub fn intercept(
        &mut self,
        to: u64,
        hook: impl Into<HookRef<BioBody>>,
        cookie: u64,
    ) -> Result<(), Failure> {
        self.body_mut().push_frame(to, cookie, Some(hook.into()))
    }

    /// Says how it ended, for a hook that lets it go on. What was lost stays lost.
    pub fn set_status(&mut self, status: Status) {
        self.body_mut().set_status(status);
    }

    /// Ends it: it goes back through the hooks to its originator.
    pub fn finish(mut self, status: Status) {
        self.body_mut().set_status(status);
        self.0.complete();
    }

    /// Ends it with the status it has: for a hook that only looks.
    pub fn pass(self) {
        self.0.complete();
    }

    /// Ends it as [`Failure::Lost`]: the device may touch the memory for ever, so the memory (of the parent too, if
    /// this is a child) is leaked. For drivers whose device cannot be stopped; the originator is answered all the same.
    pub fn abandon(mut self) {
        self.body_mut().lose();
        self.0.complete();
    }

    /// Freezes it and hands out its range to children; see [`Carver`].
    pub fn carve(self) -> Carver {
        Carver::new(self)
    }
}

impl fmt::Debug for BioJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BioJob")
            .field("op", &self.op())
            .field("offset", &self.offset())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl From<Job<BioBody>> for BioJob {
    fn from(job: Job<BioBody>) -> Self {
        Self(job)
    }
}

impl From<BioJob> for Job<BioBody> {
    fn from(job: BioJob) -> Self {
        job.0
    }
}

/// An owned first-in-first-out batch of jobs, linked through themselves: no allocation, no limit.
///
/// Dropping it completes what is left as [`Failure::Orphaned`].
#[derive(Debug, Default)]
pub struct JobList(List<BioBody>);

impl JobList {
    /// An empty list.
    pub const fn new() -> Self {
        Self(List::new())
    }

    /// Puts `job` at the end.
    pub fn push(&mut self, job: BioJob) {
        self.0.push(job.0);
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<BioJob> {
        self.0.pop().map(BioJob)
    }

    /// Moves all of `other` to the end, in order, in constant time.
    pub fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// How many jobs there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ends every job with `status`.
    pub fn finish_all(self, status: Status) {
        self.for_each(|job| job.finish(status));
    }
}

/// Pops from the front.
impl Iterator for JobList {
    type Item = BioJob;

    fn next(&mut self) -> Option<BioJob> {
        self.pop()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl ExactSizeIterator for JobList {}

impl From<BioJob> for JobList {
    fn from(job: BioJob) -> Self {
        Self(job.0.into())
    }
}

impl Extend<BioJob> for JobList {
    fn extend<I: IntoIterator<Item = BioJob>>(&mut self, jobs: I) {
        jobs.into_iter().for_each(|job| self.push(job));
    }
}

impl FromIterator<BioJob> for JobList {
    fn from_iter<I: IntoIterator<Item = BioJob>>(jobs: I) -> Self {
        let mut list = Self::new();
        list.extend(jobs);
        list
    }
}
