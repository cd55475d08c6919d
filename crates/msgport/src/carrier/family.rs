//! One job answered by several: the parent is frozen until its last child is done.

use core::fmt;
use core::mem;
use core::ops::Deref;

use dfly_hal::sync::atomic::{AtomicUsize, Ordering};

use super::{Dest, Job, Own, Ptr};
use crate::body::Body;

/// So many counts a family takes at a time. Giving one to a child is then plain arithmetic, no atomic operation.
/// The total cannot overflow: beyond one chunk there is a live node for every count.
const CHUNK: usize = 1 << 16;

/// A job that is being answered by children.
///
/// The parent is frozen: its body can be read here, and children write to its [`Shared`](Body::Shared) part only. It
/// completes when this value is dropped and all children are complete, on the thread where the last of that happens.
#[must_use = "dropping it says that there are no more children"]
pub struct Family<T: Body> {
    share: Share<T>,
}

impl<T: Body> Family<T> {
    pub(super) fn new(parent: Job<T>) -> Self {
        // SAFETY: the job owns the node, which has no children.
        unsafe { parent.ptr.renew_shared() };
        // SAFETY: the node is alive. Children reach other threads through their jobs, so the store needs no order.
        unsafe { parent.ptr.children() }.store(CHUNK, Ordering::Relaxed);
        Self { share: Share { parent: parent.into_ptr(), counts: CHUNK } }
    }

    /// Sends `child`: when it is complete it is [folded](Body::child_done) into this family and goes home.
    pub fn adopt(&mut self, child: Own<T>) -> Job<T> {
        let Share { parent, ref mut counts } = self.share;
        if *counts == 1 {
            // Relaxed: whoever holds a count may add to them, as with a reference count.
            // SAFETY: this value holds a count, so the parent is alive.
            unsafe { parent.children() }.fetch_add(CHUNK, Ordering::Relaxed);
            *counts += CHUNK;
        }
        *counts -= 1;
        child.to(Dest::Parent(Share { parent, counts: 1 }))
    }

    /// What the children share.
    pub fn shared(&self) -> &T::Shared {
        self.share.shared()
    }
}

impl<T: Body> Deref for Family<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this value holds a count, so the parent is alive, and nobody writes the body of a frozen parent.
        unsafe { self.share.parent.body() }
    }
}

/// Some of the counts that keep `parent` frozen: the family's or one child's. The last to go completes the parent.
pub(super) struct Share<T: Body> {
    parent: Ptr<T>,
    /// At least one.
    counts: usize,
}

// SAFETY: it gives `&T::Shared`, which is `Sync`, and the parent's job, which is `Send`. (A family adds `&T`.)
unsafe impl<T: Body> Send for Share<T> {}
// SAFETY: `&Share` gives `&T::Shared`, which is `Sync`, and `&Family` adds `&T`, hence the bound.
unsafe impl<T: Body + Sync> Sync for Share<T> {}

impl<T: Body> Share<T> {
    pub(super) fn shared(&self) -> &T::Shared {
        // SAFETY: this value holds a count, so the parent is alive and its shared part is not renewed.
        unsafe { self.parent.shared() }
    }

    /// Gives up the counts, and returns the parent if those were the last.
    pub(super) fn release(self) -> Option<Job<T>> {
        let Self { parent, counts } = *mem::ManuallyDrop::new(self);
        // Release: the last one sees what this thread did to the shared part, and that this child has gone home.
        // Acquire: as the last one, see that of all the others.
        // SAFETY: this value held a count, so the parent is alive.
        if unsafe { parent.children() }.fetch_sub(counts, Ordering::AcqRel) != counts {
            return None;
        }
        let mut job = Job { ptr: parent };
        // SAFETY: no count is left, so the node is this job's alone, and the shared part is not renewed meanwhile.
        let shared = unsafe { parent.shared() };
        job.unkeyed().all_children_done(shared);
        Some(job)
    }
}

impl<T: Body> Drop for Share<T> {
    fn drop(&mut self) {
        let Self { parent, counts } = *self;
        // This value is gone after `drop`: the new one takes its place.
        if let Some(job) = (Share { parent, counts }).release() {
            job.complete();
        }
    }
}

impl<T: Body> Ptr<T> {
    /// # Safety
    /// The node is alive during `'a`, or nothing is done with the reference after it is gone.
    unsafe fn children<'a>(self) -> &'a AtomicUsize {
        // SAFETY: the node is alive.
        unsafe { &(*self.0.as_ptr()).children }
    }
}

impl<T: Body + fmt::Debug> fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("parent", &**self).finish_non_exhaustive()
    }
}
