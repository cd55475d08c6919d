//! [`Carver`]: one request answered by several, each with its own piece of the memory.

use dfly_msgport::Family;

use super::window::{Data, Window};
use crate::body::{BioBody, Durable, Op};
use crate::{Bio, BioJob, Failure, Segments};

/// A frozen request whose range is handed out to children.
///
/// [`Self::next`] hands it out front to back, so no two pieces overlap; [`Self::mirror`] gives all of it to each of
/// several children, which may then only read the memory. The request completes when the carver was dropped and every
/// child is done: with the first failure of a child, if there was one. A range that was not handed out fails it as
/// [`Failure::Orphaned`]. Never blocks; allocates nothing.
#[must_use = "dropping it gives up what was not handed out"]
pub struct Carver {
    family: Family<BioBody>,
    /// What is not handed out yet.
    memory: Window,
    offset: u64,
    rest: u64,
}

impl Carver {
    pub(crate) fn new(job: BioJob) -> Self {
        let (op, offset, rest) = (job.op(), job.offset(), job.len());
        let family = job.0.split();
        // SAFETY: from here to the completion of the last child the family keeps the parent's payload in place and lends
        // it to nobody. Children's windows are gone before the parent is told that they are done (`Body::reset`).
        let memory = unsafe { family.data.window() };
        // Only a read writes memory. So what a write's pieces show may be shown twice.
        let memory = if op == Op::Read { memory } else { memory.read_only() };
        Self { family, memory, offset, rest }
    }

    /// What is asked for.
    pub fn op(&self) -> Op {
        self.family.op
    }

    /// Where the part that is not handed out begins, in bytes, as the request says it.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// How many bytes are not handed out yet.
    pub fn remaining(&self) -> u64 {
        self.rest
    }

    /// The memory that is not handed out yet.
    pub fn segments(&self) -> Segments<'_> {
        self.memory.segments()
    }

    /// Gives the next `len` bytes (or what is left) to `child`, for offset `to`. What `child` held before is dropped.
    pub fn next(&mut self, child: Bio, len: u64, to: u64) -> BioJob {
        let len = len.min(self.rest);
        self.rest -= len;
        self.offset = self.offset.saturating_add(len);
        // A range without data may be longer than the address space; its window is empty.
        let piece = self.memory.split_front(usize::try_from(len).unwrap_or(usize::MAX));
        self.adopt(child, piece, len, to)
    }

    /// Gives all that is left to `child`, for offset `to`, and keeps it for the next child: the legs of a mirror. Call
    /// [`Self::done`] after the last.
    ///
    /// # Errors
    /// `child` comes back if this is a read: two devices cannot fill the same memory. A mirror's read goes to one leg,
    /// with a hook that tries the next.
    pub fn mirror(&mut self, child: Bio, to: u64) -> Result<BioJob, Bio> {
        if self.op() == Op::Read {
            return Err(child);
        }
        let piece = self.memory.read_only();
        Ok(self.adopt(child, piece, self.rest, to))
    }

    fn adopt(&mut self, mut child: Bio, piece: Window, len: u64, to: u64) -> BioJob {
        let parent = &*self.family;
        child.body_mut().inherit(parent, to, len, Data::Piece(piece));
        BioJob(self.family.adopt(child.0))
    }

    /// All that is to be done was given to children: what [`Self::mirror`] kept is not missing.
    pub fn done(mut self) {
        self.rest = 0;
    }

    /// Gives up: the request fails with `failure` when the children that were sent are done.
    pub fn fail(mut self, failure: Failure) {
        self.family.shared().record(failure);
        self.rest = 0;
    }

    /// Whether the request wants to be durable at completion; children inherit it.
    pub fn is_fua(&self) -> bool {
        self.family.durable == Durable::Now
    }
}

impl Drop for Carver {
    fn drop(&mut self) {
        if self.rest != 0 {
            self.family.shared().record(Failure::Orphaned);
        }
    }
}
