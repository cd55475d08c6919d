//! A queue that anybody pushes to without a lock, with one receiver who sleeps on it.
//!
//! One word says all: who turns it from WAITING into anything else has the receiver's waker to wake, nobody else has.

use core::mem;
use core::ptr::{self, NonNull};
use core::task::Waker;

use dfly_hal::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use dfly_hal::sync::cell::UnsafeCell;

use super::{Job, Node, Ptr};
use crate::body::Body;

/// The queue. Pushing is for everybody, in every context; the rest is the [`Taker`]'s.
pub(crate) struct Inbox<T: Body> {
    /// Null, WAITING, CLOSED, or the node pushed last, linked to those before it.
    head: AtomicPtr<Node<T>>,
    /// Written by the taker while not FULL, emptied by whoever takes the head out of WAITING.
    waker: UnsafeCell<Option<Waker>>,
    /// The waker cell is filled for others to empty.
    full: AtomicBool,
    claimed: AtomicBool,
}

// SAFETY: it owns its nodes as jobs would, and the waker, which is `Send`.
unsafe impl<T: Body> Send for Inbox<T> {}
// SAFETY: the head is atomic; who may touch the waker cell is said at each access.
unsafe impl<T: Body> Sync for Inbox<T> {}

/// Jobs that were taken from an inbox, the last one that came first.
pub(crate) struct Latest<T: Body> {
    head: Option<Ptr<T>>,
}

// SAFETY: it owns its nodes as jobs would.
unsafe impl<T: Body> Send for Latest<T> {}

impl<T: Body> Iterator for Latest<T> {
    type Item = Job<T>;

    #[inline]
    fn next(&mut self) -> Option<Job<T>> {
        let ptr = self.head?;
        // SAFETY: this value owns its nodes.
        self.head = unsafe { ptr.link() };
        Some(Job { ptr })
    }
}

impl<T: Body> Drop for Latest<T> {
    fn drop(&mut self) {
        while let Some(job) = self.next() {
            // Should this one panic, then `rest` drops the others: no waiter hangs.
            let rest = Self { head: self.head.take() };
            drop(job);
            self.head = mem::ManuallyDrop::new(rest).head;
        }
    }
}

/// The one receiver of an [`Inbox`]. Dropping it lets another one claim the inbox.
pub(crate) struct Taker<'i, T: Body> {
    inbox: &'i Inbox<T>,
}

/// What [`Taker::sleep`] did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// The waker will be woken.
    Armed,
    /// There is something to take, or the inbox is closed.
    News,
}

impl<T: Body> Inbox<T> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            waker: UnsafeCell::new(None),
            full: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
        }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            waker: UnsafeCell::new(None),
            full: AtomicBool::new(false),
            claimed: AtomicBool::new(false),
        }
    }

    /// Empty, and nothing comes any more. An address that no node has, as is the next.
    fn closed() -> *mut Node<T> {
        ptr::without_provenance_mut(1)
    }

    /// Empty, and the taker's waker is in its cell.
    fn waiting() -> *mut Node<T> {
        ptr::without_provenance_mut(2)
    }

    fn node(head: *mut Node<T>) -> Option<Ptr<T>> {
        if head == Self::closed() || head == Self::waiting() { None } else { NonNull::new(head).map(Ptr) }
    }

    /// Pushes `job`, and returns the waker that is to be woken; or gives `job` back because the inbox is closed.
    pub(crate) fn push(&self, job: Job<T>) -> Result<Option<Waker>, Job<T>> {
        let ptr = job.into_ptr();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == Self::closed() {
                return Err(Job { ptr });
            }
            // SAFETY: the job owned the node, which is ours until the exchange succeeds.
            unsafe { ptr.set_link(Self::node(head)) };
            // Release pairs with the Acquire of `take`: the taker sees the node. Acquire pairs with the Release of
            // `sleep`: whoever ends WAITING sees the waker.
            match self.head.compare_exchange_weak(head, ptr.0.as_ptr(), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        Ok(if head == Self::waiting() {
            // SAFETY: the head was taken out of WAITING here.
            unsafe { self.take_waker() }
        } else {
            None
        })
    }

    /// Makes the taker look: what the caller did before is seen by its next [`Taker::sleep`], and a taker that sleeps
    /// already has its waker returned here, to be woken.
    pub(crate) fn nudge(&self) -> Option<Waker> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let was_waiting = head == Self::waiting();
            let next = if was_waiting { ptr::null_mut() } else { head };
            // Also where nothing changes: the taker's exchange in `sleep` then reads this or a later one, and
            // Release pairs with its Acquire. Acquire as in `push`.
            match self.head.compare_exchange_weak(head, next, Ordering::AcqRel, Ordering::Relaxed) {
                // SAFETY: the head was taken out of WAITING here.
                Ok(_) if was_waiting => return unsafe { self.take_waker() },
                Ok(_) => return None,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all there is, refuses what comes after, and returns the waker of a taker that sleeps.
    pub(crate) fn close(&self) -> (Latest<T>, Option<Waker>) {
        // Acquire as in `push` and `take`.
        let head = self.head.swap(Self::closed(), Ordering::AcqRel);
        let waker = if head == Self::waiting() {
            // SAFETY: the head was taken out of WAITING here.
            unsafe { self.take_waker() }
        } else {
            None
        };
        (Latest { head: Self::node(head) }, waker)
    }

    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: with the Release of `close`.
        self.head.load(Ordering::Acquire) == Self::closed()
    }

    /// The receiver's end, if nobody has it.
    pub(crate) fn claim(&self) -> Option<Taker<'_, T>> {
        // Acquire pairs with the Release of the last taker's end.
        let free = self.claimed.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then_some(Taker { inbox: self })
    }

    /// # Safety
    /// The caller has taken the head out of WAITING, with Acquire.
    unsafe fn take_waker(&self) -> Option<Waker> {
        // SAFETY: the cell is the caller's until it is not full.
        let waker = unsafe { self.with_waker(mem::take) };
        // Release pairs with the Acquire of `sleep`: the cell is the taker's again.
        self.full.store(false, Ordering::Release);
        waker
    }

    /// # Safety
    /// The cell is the caller's.
    unsafe fn with_waker<R>(&self, f: impl FnOnce(&mut Option<Waker>) -> R) -> R {
        self.waker.with_mut(|p| {
            // SAFETY: as promised by the caller.
            f(unsafe { &mut *p })
        })
    }
}

impl<T: Body> Taker<'_, T> {
    /// All there is.
    #[inline]
    pub(crate) fn take(&mut self) -> Latest<T> {
        let head = &self.inbox.head;
        let mut now = head.load(Ordering::Relaxed);
        while let Some(node) = Inbox::node(now) {
            // Acquire pairs with the Release of `push`.
            match head.compare_exchange_weak(now, ptr::null_mut(), Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Latest { head: Some(node) },
                Err(other) => now = other,
            }
        }
        Latest { head: None }
    }

    /// Leaves `waker` to be woken when there is something to take, unless there is already.
    pub(crate) fn sleep(&mut self, waker: &Waker) -> Sleep {
        let inbox = self.inbox;
        let waiting = Inbox::waiting();
        // Who takes its own WAITING back has the cell, with the waker in it. Nothing else was read through the head.
        let mine =
            inbox.head.compare_exchange(waiting, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed);
        match mine {
            Ok(_) => {}
            Err(head) if !head.is_null() => return Sleep::News,
            // Acquire pairs with the Release of whoever emptied the cell.
            Err(_) if inbox.full.load(Ordering::Acquire) => {
                // Somebody is emptying it, which is three instructions: look again.
                waker.wake_by_ref();
                return Sleep::Armed;
            }
            Err(_) => {}
        }
        // Clones and drops wakers, which is foreign code; what that does to this inbox goes through the head.
        let new = waker.clone();
        // SAFETY: it is not WAITING, and nobody is left who ended that: the cell is the taker's.
        let old = unsafe { inbox.with_waker(|cell| cell.replace(new)) };
        inbox.full.store(true, Ordering::Relaxed);
        // Release: whoever ends WAITING sees the waker, and that it is full. Acquire: pairs with `nudge`.
        let armed = inbox
            .head
            .compare_exchange(ptr::null_mut(), waiting, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        drop(old);
        if armed {
            return Sleep::Armed;
        }
        // SAFETY: nobody saw it WAITING: the cell is still the taker's.
        drop(unsafe { inbox.with_waker(mem::take) });
        inbox.full.store(false, Ordering::Relaxed);
        Sleep::News
    }
}

impl<T: Body> Drop for Taker<'_, T> {
    fn drop(&mut self) {
        let inbox = self.inbox;
        let waiting = Inbox::waiting();
        // A waker of ours is not left for the next one. If somebody is about to wake it, let that happen.
        if inbox.head.compare_exchange(waiting, ptr::null_mut(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            // SAFETY: nobody else ended WAITING: the cell is the taker's.
            drop(unsafe { inbox.with_waker(mem::take) });
            inbox.full.store(false, Ordering::Relaxed);
        }
        // Release pairs with the Acquire of the next claim.
        inbox.claimed.store(false, Ordering::Release);
    }
}

impl<T: Body> Drop for Inbox<T> {
    fn drop(&mut self) {
        drop(self.close());
    }
}
