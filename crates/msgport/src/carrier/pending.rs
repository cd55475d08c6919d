//! One waiter and one completer meet. The numbered transitions are in DESIGN.md.

use core::fmt;
use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

use dfly_hal::sync::NoPreemption;
use dfly_hal::sync::atomic::{AtomicU8, Ordering};
use dfly_hal::sync::cell::UnsafeCell;
use dfly_hal::sync::hint::spin_loop;

use super::{Own, Ptr, Recall};
use crate::body::Body;

/// The waiter has not looked yet, or has taken its waker back.
const SENT: u8 = 0;
/// The waker cell is filled, and the completer may take it.
const ARMED: u8 = 1;
/// The completer is moving the waker out: three instructions.
const TAKING: u8 = 2;
/// The node is the waiter's.
const DONE: u8 = 3;
/// The waiter was dropped: the node is the completer's.
const GONE: u8 = 4;

/// A future of the completed message. Dropping it never blocks: the node goes home when the receiver lets go.
///
/// Once it gave the message back it stays pending for ever.
#[must_use = "dropping it gives the message up"]
pub struct Pending<T: Body> {
    ptr: Option<Ptr<T>>,
}

// SAFETY: it gives `Own<T>`, which is `Send`, and until then touches the waiter's fields only.
unsafe impl<T: Body> Send for Pending<T> {}
// SAFETY: `&Pending` reads an atomic and no more.
unsafe impl<T: Body> Sync for Pending<T> {}

impl<T: Body> Pending<T> {
    /// # Safety
    /// The caller owns the node, and its destination is the waiter, that is this value.
    pub(super) unsafe fn new(ptr: Ptr<T>) -> Self {
        // SAFETY: the caller owns the node. It reaches other threads through this value and the job, so the
        // store needs no order of its own.
        unsafe { ptr.wait() }.store(SENT, Ordering::Relaxed);
        Self { ptr: Some(ptr) }
    }

    /// Is the message back? Then [`Self::try_take`] and `poll` give it.
    pub fn is_done(&self) -> bool {
        self.ptr.is_none_or(|ptr| {
            // SAFETY: while this value has the pointer, the node is alive.
            unsafe { ptr.wait() }.load(Ordering::Acquire) == DONE
        })
    }

    /// The message, if it is back.
    pub fn try_take(mut self) -> Result<Own<T>, Self> {
        if self.is_done() { self.take().ok_or(self) } else { Err(self) }
    }

    pub(crate) fn set_recall(&self, recall: Recall) {
        if let Some(ptr) = self.ptr {
            // Relaxed: see `Job::recalled`.
            // SAFETY: while this value has the pointer, the node is alive.
            unsafe { ptr.recall() }.store(recall as u8, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_recalled(&self) -> bool {
        // SAFETY: while this value has the pointer, the node is alive.
        self.ptr.is_some_and(|ptr| unsafe { ptr.recall() }.load(Ordering::Relaxed) != Recall::No as u8)
    }

    pub(super) fn is_of(&self, ptr: Ptr<T>) -> bool {
        self.ptr.is_some_and(|own| own.0 == ptr.0)
    }

    /// The job came to the waiter's hand on another way.
    pub(super) fn forget(mut self) {
        self.ptr = None;
    }

    /// Call it after DONE was seen with Acquire.
    fn take(&mut self) -> Option<Own<T>> {
        let ptr = self.ptr.take()?;
        // SAFETY: in DONE the node is the waiter's.
        let cell = unsafe { ptr.waker() };
        // There is still a waker if it was completed while the waiter had it back to look at.
        // SAFETY: as above.
        drop(unsafe { take_waker(cell) });
        Some(Own { ptr })
    }
}

impl<T: Body> Future for Pending<T> {
    type Output = Own<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Own<T>> {
        let Some(ptr) = self.ptr else { return Poll::Pending };
        // SAFETY: while this value has the pointer, the node is alive.
        let wait = unsafe { ptr.wait() };
        // SAFETY: as above.
        let cell = unsafe { ptr.waker() };
        loop {
            // Acquire pairs with the Release of DONE.
            match wait.load(Ordering::Acquire) {
                DONE => return self.take().map_or(Poll::Pending, Poll::Ready),
                // The completer takes the waker only from ARMED, so taking that back makes the cell ours to look at.
                ARMED => {
                    let _ = wait.compare_exchange(ARMED, SENT, Ordering::Relaxed, Ordering::Relaxed);
                }
                SENT => {
                    // SAFETY: the state is SENT, which only the waiter leaves with the cell filled.
                    let waker = unsafe { take_waker(cell) };
                    let waker = match waker {
                        Some(w) if w.will_wake(cx.waker()) => w,
                        _ => cx.waker().clone(),
                    };
                    // SAFETY: as above.
                    unsafe { put_waker(cell, waker) };
                    // Release pairs with the Acquire of TAKING: the completer sees the waker.
                    if wait.compare_exchange(SENT, ARMED, Ordering::Release, Ordering::Relaxed).is_ok() {
                        return Poll::Pending;
                    }
                }
                // TAKING
                _ => spin_loop(),
            }
        }
    }
}

impl<T: Body> Drop for Pending<T> {
    fn drop(&mut self) {
        let Some(ptr) = self.ptr else { return };
        // SAFETY: while this value has the pointer, the node is alive.
        let wait = unsafe { ptr.wait() };
        // SAFETY: as above.
        let cell = unsafe { ptr.waker() };
        loop {
            // As in `poll`.
            match wait.load(Ordering::Acquire) {
                DONE => return drop(self.take()),
                ARMED => {
                    let _ = wait.compare_exchange(ARMED, SENT, Ordering::Relaxed, Ordering::Relaxed);
                }
                SENT => {
                    // SAFETY: the state is SENT, which only the waiter leaves with the cell filled.
                    drop(unsafe { take_waker(cell) });
                    // Release pairs with the Acquire of whoever finds GONE and frees the node.
                    if wait.compare_exchange(SENT, GONE, Ordering::Release, Ordering::Relaxed).is_ok() {
                        return;
                    }
                }
                // TAKING
                _ => spin_loop(),
            }
        }
    }
}

/// Hands a completed node to its waiter, or sends it home if the waiter is gone.
///
/// # Safety
/// The caller owns the node, its destination was the waiter and is taken out, and this happens once.
pub(super) unsafe fn deliver<T: Body>(ptr: Ptr<T>) {
    // SAFETY: until DONE is stored the node is alive.
    let wait = unsafe { ptr.wait() };
    loop {
        // Release shows the waiter what the receiver wrote. Acquire: GONE shows that the waiter has let go.
        match wait.compare_exchange(SENT, DONE, Ordering::Release, Ordering::Acquire) {
            // The node is the waiter's now.
            Ok(_) => return,
            Err(GONE) => {
                // SAFETY: the waiter is gone and left the node to us.
                return unsafe { ptr.go_home() };
            }
            Err(_) => {}
        }
        // A waiter that looks meanwhile spins until DONE, so nobody may come between: else one that outranks this
        // thread on its CPU would spin for ever.
        let alone = NoPreemption::new();
        // Acquire pairs with the Release of ARMED: the waker is there. It fails if the waiter has it back.
        if wait.compare_exchange(ARMED, TAKING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
            // SAFETY: the node is alive until DONE is stored.
            let cell = unsafe { ptr.waker() };
            // SAFETY: in TAKING the cell is the completer's.
            let waker = unsafe { take_waker(cell) };
            wait.store(DONE, Ordering::Release);
            // The node is the waiter's now.
            drop(alone);
            return waker.map_or((), Waker::wake);
        }
    }
}

/// # Safety
/// The cell is the caller's: the waiter's in SENT, the completer's in TAKING.
unsafe fn take_waker(cell: &UnsafeCell<Option<Waker>>) -> Option<Waker> {
    cell.with_mut(|p| {
        // SAFETY: as promised by the caller.
        mem::take(unsafe { &mut *p })
    })
}

/// # Safety
/// As for [`take_waker`], and the cell is empty.
unsafe fn put_waker(cell: &UnsafeCell<Option<Waker>>, waker: Waker) {
    cell.with_mut(|p| {
        // SAFETY: as promised by the caller.
        unsafe { *p = Some(waker) }
    });
}

impl<T: Body> Ptr<T> {
    /// # Safety
    /// The node is alive during `'a`, or nothing is done with the reference after it is gone.
    unsafe fn wait<'a>(self) -> &'a AtomicU8 {
        // SAFETY: the node is alive.
        unsafe { &(*self.0.as_ptr()).wait }
    }

    /// # Safety
    /// As for [`Self::wait`].
    unsafe fn waker<'a>(self) -> &'a UnsafeCell<Option<Waker>> {
        // SAFETY: the node is alive.
        unsafe { &(*self.0.as_ptr()).waker }
    }
}

impl<T: Body> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("is_done", &self.is_done()).finish()
    }
}
