//! One job answered by several: the parent is frozen until its last child is done.

use core::fmt;
use core::ops::Deref;

use super::{Dest, Job, Own, Ptr};
use crate::body::Body;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// The count of a family that still adopts is this, less its completed children. So adopting costs no atomic
/// operation; giving the family up subtracts the rest.
const OPEN: usize = usize::MAX / 2;

/// A job that is being answered by children.
///
/// The parent is frozen: its body can be read here, and children write to its [`Shared`](Body::Shared) part only. It
/// completes when this value is dropped and all children are complete, on the thread where the last of that happens.
#[must_use = "dropping it says that there are no more children"]
pub struct Family<T: Body> {
    parent: Ptr<T>,
    adopted: usize,
}

// SAFETY: it owns the parent but for what the children share, and that is `Sync`.
unsafe impl<T: Body> Send for Family<T> {}
// SAFETY: `&Family` gives `&T` and `&T::Shared` and no more.
unsafe impl<T: Body + Sync> Sync for Family<T> {}

impl<T: Body> Family<T> {
    pub(super) fn new(parent: Job<T>) -> Self {
        let parent = parent.into_ptr();
        // SAFETY: the job owned the node and had no children.
        unsafe { parent.renew_shared() };
        // SAFETY: the node is alive. Children reach other threads through their jobs, so the store needs no order.
        unsafe { parent.children() }.store(OPEN, Ordering::Relaxed);
        Self { parent, adopted: 0 }
    }

    /// Sends `child`, to be folded into this family when it is complete and then to go home.
    pub fn adopt(&mut self, child: Own<T>) -> Job<T> {
        if self.adopted == OPEN / 2 {
            // SAFETY: this value holds a count, so the parent is alive.
            unsafe { self.parent.children() }.fetch_add(self.adopted, Ordering::Relaxed);
            self.adopted = 0;
        }
        self.adopted += 1;
        child.to(Dest::Parent(self.parent))
    }

    /// What the children share.
    pub fn shared(&self) -> &T::Shared {
        // SAFETY: this value holds a count, so the parent is alive and its shared part stays.
        unsafe { self.parent.shared() }
    }
}

impl<T: Body> Drop for Family<T> {
    fn drop(&mut self) {
        // SAFETY: this value holds all the counts that no child holds.
        if let Some(parent) = unsafe { let_go(self.parent, OPEN - self.adopted) } {
            parent.complete();
        }
    }
}

/// Folds a completed child into its parent and sends it home. Returns the parent if it was the last.
///
/// # Safety
/// `child` was adopted by `parent`, and its destination is taken out.
pub(super) unsafe fn child_done<T: Body>(parent: Ptr<T>, mut child: Job<T>) -> Option<Job<T>> {
    // SAFETY: the child holds a count, so the parent is alive and its shared part stays.
    let shared = unsafe { parent.shared() };
    child.body_mut_for_carrier().child_done(shared);
    // Home first: the child may point into the parent.
    drop(child.arrived());
    // SAFETY: this is the child's count.
    unsafe { let_go(parent, 1) }
}

/// Gives up `counts` of `parent`, and returns it if those were the last.
///
/// # Safety
/// The caller holds as many counts and does not use `parent` after this.
unsafe fn let_go<T: Body>(parent: Ptr<T>, counts: usize) -> Option<Job<T>> {
    // Release: what this thread did to the shared part is seen by the last. Acquire: as the last, see it all.
    // SAFETY: the caller holds a count, so the parent is alive.
    if unsafe { parent.children() }.fetch_sub(counts, Ordering::AcqRel) != counts {
        return None;
    }
    let mut job = Job { ptr: parent };
    // SAFETY: no count is left, so the parent is ours alone, and the shared part is not renewed here.
    let shared = unsafe { parent.shared() };
    job.body_mut_for_carrier().all_children_done(shared);
    Some(job)
}

impl<T: Body> Ptr<T> {
    /// # Safety
    /// The node is alive during `'a`, or nothing is done with the reference after it is gone.
    unsafe fn children<'a>(self) -> &'a AtomicUsize {
        // SAFETY: the node is alive.
        unsafe { &(*self.0.as_ptr()).children }
    }
}

impl<T: Body> Deref for Family<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this value holds a count, so the parent is alive, and children do not touch its body.
        unsafe { self.parent.body() }
    }
}

impl<T: Body + fmt::Debug> fmt::Debug for Family<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family").field("parent", &**self).field("adopted", &self.adopted).finish()
    }
}
