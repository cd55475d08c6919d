//! [`BioBody`]: what the carrier's node holds for a block request. Nobody outside this crate gets `&mut` to it.

use core::fmt;

use dfly_hal::Instant;
use dfly_hal::sync::atomic::{AtomicU8, Ordering};
use dfly_msgport::{Body, HookRef, Unanswered};

use crate::buf::Data;
use crate::{Failure, Payload, Status};

/// How many layers may remap one request on its way down. A child of a split starts at zero again.
pub const MAX_DEPTH: usize = 4;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Fill the memory from the medium.
    Read,
    /// Write the memory to the medium.
    Write,
    /// Make every write that completed before this was submitted survive a power cut.
    Flush,
    /// The range's contents are no longer needed: reads of it may give anything.
    Discard,
    /// Reads of the range give zeroes from now on.
    WriteZeroes,
}

impl Op {
    /// Whether it changes what a read gives.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::Discard | Self::WriteZeroes)
    }

    /// Whether it comes with memory.
    pub const fn has_data(self) -> bool {
        matches!(self, Self::Read | Self::Write)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::WriteZeroes => "write-zeroes",
        })
    }
}

/// A hint of how urgent a request is. Devices may ignore it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Whenever nothing else is to do.
    Background,
    /// The rule.
    #[default]
    Normal,
    /// Somebody waits for it.
    Urgent,
}

/// How a layer finds its way back: where the request was, and who wants to see it return.
#[derive(Default)]
struct Frame {
    offset: u64,
    cookie: u64,
    hook: Option<HookRef<BioBody>>,
}

/// The inside of a block request. Opaque: use [`Bio`](crate::Bio) and [`BioJob`](crate::BioJob).
///
/// It appears in the signatures of the carrier's `Sink<BioBody>` and `Hook<BioBody>`, and is never lent mutably.
pub struct BioBody {
    pub(crate) op: Op,
    pub(crate) status: Status,
    pub(crate) durable: Durable,
    pub(crate) priority: Priority,
    /// Memory was given up for lost; only a new request clears it.
    pub(crate) lost: bool,
    depth: u8,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) deadline: Instant,
    pub(crate) tag: u64,
    /// What the layer whose hook runs had left for itself.
    pub(crate) cookie: u64,
    pub(crate) data: Data,
    frames: [Frame; MAX_DEPTH],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durable {
    Later,
    /// FUA: durable when it completes.
    Now,
}

impl BioBody {
    pub(crate) fn new() -> Self {
        Self {
            op: Op::Flush,
            status: Ok(()),
            durable: Durable::Later,
            priority: Priority::Normal,
            lost: false,
            depth: 0,
            offset: 0,
            len: 0,
            deadline: Instant::FAR_FUTURE,
            tag: 0,
            cookie: 0,
            data: Data::Own(Payload::None),
            frames: Default::default(),
        }
    }

    /// Sets it up for a new request; what the last one left of memory is dropped.
    pub(crate) fn prepare(&mut self, op: Op, offset: u64, len: u64, data: Payload) {
        self.op = op;
        self.status = Ok(());
        self.durable = Durable::Later;
        self.priority = Priority::Normal;
        self.lost = false;
        self.offset = offset;
        self.len = len;
        self.deadline = Instant::FAR_FUTURE;
        self.tag = 0;
        self.cookie = 0;
        self.data = Data::Own(data);
    }

    /// Sets it up as a child of `parent`.
    pub(crate) fn inherit(&mut self, parent: &Self, offset: u64, len: u64, piece: Data) {
        self.prepare(parent.op, offset, len, Payload::None);
        self.durable = parent.durable;
        self.priority = parent.priority;
        self.deadline = parent.deadline;
        self.data = piece;
    }

    pub(crate) fn push_frame(
        &mut self,
        to: u64,
        cookie: u64,
        hook: Option<HookRef<Self>>,
    ) -> Result<(), Failure> {
        let frame = self.frames.get_mut(usize::from(self.depth)).ok_or(Failure::TooDeep)?;
        *frame = Frame { offset: self.offset, cookie, hook };
        self.depth += 1;
        self.offset = to;
        Ok(())
    }

    /// Ends it. What was lost stays lost, whoever says what later.
    pub(crate) fn set_status(&mut self, status: Status) {
        self.status = if self.lost { Err(Failure::Lost) } else { status };
    }

    /// Gives its memory up: a device that cannot be stopped may touch it for ever.
    pub(crate) fn lose(&mut self) {
        self.lost = true;
        self.status = Err(Failure::Lost);
        core::mem::forget(self.data.take());
    }
}

/// Opens a [`BioBody`] for writing; only this crate has it.
///
/// Were the body open to all, a device could swap the bodies of two jobs, complete one, and keep a piece of memory
/// whose owner already has it back.
pub struct BioKey(pub(crate) ());

/// What the children of a split leave for their parent.
#[derive(Default)]
pub struct Verdict {
    /// The first failure's code, zero while there is none; [`Failure::Lost`] beats all others.
    code: AtomicU8,
}

impl Verdict {
    pub(crate) fn record(&self, failure: Failure) {
        // Relaxed: the family's count, released by each child, orders this before the parent looks.
        if failure == Failure::Lost {
            self.code.store(failure.code(), Ordering::Relaxed);
        } else {
            let _ = self.code.compare_exchange(0, failure.code(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn status(&self) -> Status {
        Failure::status_of(self.code.load(Ordering::Relaxed))
    }
}

impl Body for BioBody {
    type Shared = Verdict;
    type Key = BioKey;

    fn orphaned(&mut self) {
        self.set_status(Err(Failure::Orphaned));
    }

    fn unanswered(&mut self, why: Unanswered) {
        self.set_status(Err(match why {
            Unanswered::Aborted | Unanswered::Withdrawn => Failure::Aborted,
            Unanswered::PortClosed => Failure::Gone,
            _ => Failure::Orphaned,
        }));
    }

    fn is_urgent(&self) -> bool {
        self.priority == Priority::Urgent
    }

    fn pop_hook(&mut self) -> Option<HookRef<Self>> {
        while let Some(top) = self.depth.checked_sub(1) {
            self.depth = top;
            let frame = self.frames.get_mut(usize::from(top))?;
            self.offset = frame.offset;
            self.cookie = frame.cookie;
            if let Some(hook) = frame.hook.take() {
                return Some(hook);
            }
        }
        None
    }

    fn child_done(&mut self, parent: &Verdict) {
        if let Err(failure) = self.status {
            parent.record(failure);
        }
    }

    fn all_children_done(&mut self, children: &Verdict) {
        match children.status() {
            Err(Failure::Lost) => self.lose(),
            status => self.set_status(status),
        }
    }

    fn reset(&mut self) {
        // A piece points into the parent, which is told right after this; memory of its own goes back to its owner.
        drop(self.data.take());
    }
}
