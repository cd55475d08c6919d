//! [`Split`]: a device that takes requests of any length, over one that does not.

use alloc::sync::{Arc, Weak};
use core::fmt;

use dfly_hal::sync::Lock;
use dfly_msgport::{Hook, HookRef, Job};

use crate::{BioBody, BioJob, BioPool, BlockDevice, Carver, Failure, JobList, Limits};

/// Splits requests that are beyond the lower device's limits into children that are not.
///
/// A request that fits goes through untouched. The children come from this device's own pool, so nothing is allocated
/// per request. One child is kept in reserve, for when the others are all under way: then requests park here, and go on
/// when that one comes home. The memory is not copied: each child has a piece of its parent's.
pub struct Split<D> {
    shared: Arc<Shared<D>>,
}

struct Shared<D> {
    /// Itself, as the hook of the child in reserve.
    me: Weak<Self>,
    lower: D,
    limits: Limits,
    /// These come home without a word, which costs nothing.
    children: BioPool,
    /// One more, which says when it is home. Whenever something is parked, it is under way.
    reserve: BioPool,
    parked: Lock<Parked>,
}

#[derive(Default)]
struct Parked {
    /// What is being handed out, and waits for a child.
    current: Option<Carver>,
    waiting: JobList,
    /// Somebody is at work in [`Shared::go_on`].
    busy: bool,
    /// The reserve came home or a job came in meanwhile.
    again: bool,
}

impl<D: BlockDevice + 'static> Split<D> {
    /// Splits for `lower`, with at most `children` (at least one) pieces under way at a time. Allocates the children.
    pub fn new(lower: D, children: usize) -> Self {
        let shared = Arc::new_cyclic(|me| Shared {
            me: me.clone(),
            limits: lower.limits(),
            lower,
            children: BioPool::new(children.saturating_sub(1)),
            reserve: BioPool::new(1),
            parked: Lock::new(Parked::default()),
        });
        Self { shared }
    }

    /// The device below.
    pub fn lower(&self) -> &D {
        &self.shared.lower
    }
}

impl<D: BlockDevice + 'static> BlockDevice for Split<D> {
    fn limits(&self) -> Limits {
        let mut limits = self.shared.limits;
        limits.max_bytes = u64::MAX;
        limits.max_segments = u32::MAX;
        limits.boundary_bytes = 0;
        for range in [&mut limits.discard, &mut limits.write_zeroes].into_iter().flatten() {
            range.max_bytes = u64::MAX;
        }
        limits
    }

    fn submit(&self, batch: JobList) {
        let limits = &self.shared.limits;
        let (mut fit, mut long) = (JobList::new(), JobList::new());
        for job in batch {
            // What splitting does not help goes down too: the lower device has the error to say.
            if limits.check(&job) == Err(Failure::TooLong) { long.push(job) } else { fit.push(job) }
        }
        if !fit.is_empty() {
            self.shared.lower.submit(fit);
        }
        if !long.is_empty() {
            self.shared.go_on(long);
        }
    }

    fn poll(&self) -> usize {
        self.shared.lower.poll()
    }
}

impl<D: BlockDevice + 'static> Shared<D> {
    /// Hands out what is parked, then `more`, while there are children. Called again from inside itself, by a device
    /// that completes in `submit`, it only leaves a note, so the stack does not grow with the number of pieces.
    fn go_on(&self, mut more: JobList) {
        let (mut current, mut waiting) = {
            let mut parked = self.parked.lock();
            parked.waiting.append(&mut more);
            if parked.busy {
                parked.again = true;
                return;
            }
            if parked.current.is_none() && parked.waiting.is_empty() {
                return;
            }
            parked.busy = true;
            parked.again = false;
            (parked.current.take(), core::mem::take(&mut parked.waiting))
        };
        loop {
            let pieces = self.hand_out(&mut current, &mut waiting);
            if !pieces.is_empty() {
                self.lower.submit(pieces);
            }
            let mut parked = self.parked.lock();
            // What came in meanwhile goes behind what was there.
            waiting.append(&mut parked.waiting);
            if !parked.again {
                parked.current = current;
                parked.waiting = waiting;
                parked.busy = false;
                return;
            }
            parked.again = false;
        }
    }

    fn hand_out(&self, current: &mut Option<Carver>, waiting: &mut JobList) -> JobList {
        let mut pieces = JobList::new();
        loop {
            let Some(carver) = current else {
                match waiting.pop() {
                    Some(job) => *current = Some(job.carve()),
                    None => return pieces,
                }
                continue;
            };
            let (at, rest) = (carver.offset(), carver.remaining());
            if rest == 0 {
                *current = None;
                continue;
            }
            let len = self.limits.fitting_rest(carver.op(), at, rest, carver.segments());
            if len == 0 {
                // Not even a block of it is within the limits.
                if let Some(carver) = current.take() {
                    carver.fail(Failure::TooLong);
                }
                continue;
            }
            if let Some(child) = self.children.get() {
                pieces.push(carver.next(child, len, at));
                continue;
            }
            let Some(child) = self.reserve.get() else { return pieces };
            let mut piece = carver.next(child, len, at);
            // Whoever calls this holds the device, or the frame of the reserve does.
            let hooked = match self.me.upgrade() {
                Some(me) => piece.intercept(at, HookRef::from(me), 0),
                None => Err(Failure::Aborted),
            };
            match hooked {
                Ok(()) => pieces.push(piece),
                Err(failure) => piece.finish(Err(failure)),
            }
        }
    }
}

/// The reserve on its way home. Its parent is told, and then there is a child for what is parked.
impl<D: BlockDevice + 'static> Hook<BioBody> for Shared<D> {
    fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
        // The child must be home before the look at what is parked: who parks looks for a child first.
        BioJob::from(job).pass();
        self.go_on(JobList::new());
        None
    }
}

impl<D> fmt::Debug for Split<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}
