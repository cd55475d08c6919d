//! The node, and who owns it: all unsafe code of the crate is in this module.

mod family;
mod fifo;
mod inbox;
mod pending;
mod stack;

pub use family::Family;
use family::Share;
pub use fifo::{Fifo, Handle};
pub(crate) use inbox::{Inbox, Sleep, Taker};
pub use pending::Pending;
pub(crate) use stack::{Pile, Stack};

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::task::Waker;

use dfly_hal::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use dfly_hal::sync::cell::UnsafeCell;

use crate::body::{Body, Plain, SinkRef, Unanswered};

/// The allocation behind every handle. Who may touch which field is in DESIGN.md, table "fields".
struct Node<T: Body> {
    link: UnsafeCell<Option<Ptr<T>>>,
    dest: UnsafeCell<Dest<T>>,
    wait: AtomicU8,
    /// A [`Recall`]. It is outside of the body because its writer, the originator, does not own that meanwhile.
    recall: AtomicU8,
    waker: UnsafeCell<Option<Waker>>,
    children: AtomicUsize,
    shared: UnsafeCell<T::Shared>,
    body: UnsafeCell<T>,
    home: Option<Arc<Stack<T>>>,
}

/// Where a completed job goes.
enum Dest<T: Body> {
    Nobody,
    Waiter,
    Sink(SinkRef<T>),
    Parent(Share<T>),
}

/// What the originator of a message under way wants of it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Recall {
    /// An answer.
    No,
    /// To have it back, if nobody has begun with it.
    Withdraw,
    /// To have it back soon.
    Abort,
}

/// A pointer to a live node. It says nothing about ownership: the handles below do.
struct Ptr<T: Body>(NonNull<Node<T>>);

impl<T: Body> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Body> Copy for Ptr<T> {}

/// Each method makes a reference to one field only, never to the whole node, because other fields may belong to
/// another thread at that moment.
impl<T: Body> Ptr<T> {
    fn alloc(body: T, home: Option<Arc<Stack<T>>>) -> Self {
        let node = Box::new(Node {
            link: UnsafeCell::new(None),
            dest: UnsafeCell::new(Dest::Nobody),
            wait: AtomicU8::new(0),
            recall: AtomicU8::new(Recall::No as u8),
            waker: UnsafeCell::new(None),
            children: AtomicUsize::new(0),
            shared: UnsafeCell::new(T::Shared::default()),
            body: UnsafeCell::new(body),
            home,
        });
        Self(NonNull::from(Box::leak(node)))
    }

    /// # Safety
    /// The caller owns the node, and no other handle to it is left.
    unsafe fn free(self) {
        #[cfg(loom)]
        // SAFETY: as promised by the caller.
        unsafe {
            self.watch_free()
        };
        // SAFETY: the node came from `alloc`, and the caller owns it alone.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }

    /// Tells loom of the access to every cell that freeing is; by itself it does not see them.
    ///
    /// # Safety
    /// The node is alive.
    #[cfg(loom)]
    unsafe fn watch_free(self) {
        // SAFETY: the node is alive.
        let node = unsafe { self.0.as_ref() };
        node.link.with_mut(|_| ());
        node.dest.with_mut(|_| ());
        node.waker.with_mut(|_| ());
        node.shared.with_mut(|_| ());
        node.body.with_mut(|_| ());
    }

    /// # Safety
    /// The caller owns the node, no other handle to it is left, and its destination is `Nobody`.
    unsafe fn go_home(self) {
        // SAFETY: the node is alive, and `home` never changes.
        let Some(home) = (unsafe { &(*self.0.as_ptr()).home }) else {
            // SAFETY: as promised by the caller.
            return unsafe { self.free() };
        };
        // SAFETY: the caller owns the node, hence its body.
        unsafe { self.body_mut() }.reset();
        // SAFETY: the caller gives the node up.
        let refused = unsafe { home.push(self) };
        if refused {
            // SAFETY: the pool is gone and did not take it, so it is still the caller's.
            unsafe { self.free() };
        }
    }

    /// # Safety
    /// The node outlives `'a`, and during `'a` its body is not written.
    unsafe fn body<'a>(self) -> &'a T {
        // SAFETY: the node is alive.
        let cell = unsafe { &(*self.0.as_ptr()).body };
        cell.with(|p| {
            // SAFETY: nobody writes the body, says the caller.
            unsafe { &*p }
        })
    }

    /// # Safety
    /// The node outlives `'a`, and during `'a` nobody else touches its body.
    unsafe fn body_mut<'a>(self) -> &'a mut T {
        // SAFETY: the node is alive.
        let cell = unsafe { &(*self.0.as_ptr()).body };
        cell.with_mut(|p| {
            // SAFETY: the body is the caller's alone.
            unsafe { &mut *p }
        })
    }

    /// # Safety
    /// The node outlives `'a`, and during `'a` nobody calls [`Self::renew_shared`].
    unsafe fn shared<'a>(self) -> &'a T::Shared {
        // SAFETY: the node is alive.
        let cell = unsafe { &(*self.0.as_ptr()).shared };
        cell.with(|p| {
            // SAFETY: it is read only while shared.
            unsafe { &*p }
        })
    }

    /// # Safety
    /// The caller owns the node, and it has no children.
    unsafe fn renew_shared(self) {
        // SAFETY: the node is alive.
        let cell = unsafe { &(*self.0.as_ptr()).shared };
        // A local first: the old value is dropped, by foreign code, only after the new one is in place.
        let _old = cell.with_mut(|p| {
            // SAFETY: without children the cell is its owner's alone.
            mem::take(unsafe { &mut *p })
        });
    }

    /// # Safety
    /// The caller owns the node.
    unsafe fn set_dest(self, to: Dest<T>) -> Dest<T> {
        // SAFETY: the node is alive.
        let cell = unsafe { &(*self.0.as_ptr()).dest };
        cell.with_mut(|p| {
            // SAFETY: the destination is the owner's alone.
            mem::replace(unsafe { &mut *p }, to)
        })
    }

    /// # Safety
    /// The node is alive during `'a`, or nothing is done with the reference after it is gone.
    unsafe fn recall<'a>(self) -> &'a AtomicU8 {
        // SAFETY: the node is alive.
        unsafe { &(*self.0.as_ptr()).recall }
    }

    /// # Safety
    /// The caller owns the node.
    unsafe fn set_link(self, to: Option<Self>) {
        // SAFETY: the node is alive.
        let cell = unsafe { &(*self.0.as_ptr()).link };
        cell.with_mut(|p| {
            // SAFETY: the link is the owner's alone.
            unsafe { *p = to }
        });
    }

    /// # Safety
    /// The caller owns the node.
    unsafe fn link(self) -> Option<Self> {
        // SAFETY: the node is alive.
        let cell = unsafe { &(*self.0.as_ptr()).link };
        cell.with(|p| {
            // SAFETY: the link is the owner's alone.
            unsafe { *p }
        })
    }
}

/// A message at rest, in its originator's hand.
///
/// Eight bytes; the node behind it is a box or comes from a [`Pool`](crate::Pool), and goes back there when this is
/// dropped. Sending turns it into a [`Job`].
///
/// `&T` is free for all. `&mut T` is for those who can show the body's [key](Body::Key), because a body may point
/// into memory that is not its own: were it not so, a receiver could swap the bodies of two jobs, complete the one,
/// and use through the other a piece of memory whose owner already has it back.
pub struct Own<T: Body> {
    ptr: Ptr<T>,
}

// SAFETY: it owns the node, and all that the node holds may change threads: the body by `Body: Send`, `Shared` by
// its bound, sinks and wakers by theirs.
unsafe impl<T: Body> Send for Own<T> {}
// SAFETY: `&Own` gives `&T` and no more.
unsafe impl<T: Body + Sync> Sync for Own<T> {}

impl<T: Body> Own<T> {
    /// A message in a box of its own. Allocates.
    pub fn new(body: T) -> Self {
        Self { ptr: Ptr::alloc(body, None) }
    }

    pub(crate) fn pooled(body: T, home: Arc<Stack<T>>) -> Self {
        Self { ptr: Ptr::alloc(body, Some(home)) }
    }

    /// The body, for whoever can show its [key](Body::Key).
    pub fn body_mut(&mut self, key: T::Key) -> &mut T {
        let _ = key;
        self.unkeyed()
    }

    /// For the carrier's calls of the body's own methods.
    fn unkeyed(&mut self) -> &mut T {
        // SAFETY: this handle owns the node and is borrowed mutably.
        unsafe { self.ptr.body_mut() }
    }

    /// Sends it, with nobody waiting: it goes home when it is complete.
    pub fn detached(self) -> Job<T> {
        self.to(Dest::Nobody)
    }

    /// Sends it, with a future that gives it back when it is complete.
    pub fn waitable(self) -> (Job<T>, Pending<T>) {
        let job = self.to(Dest::Waiter);
        // SAFETY: the destination says that there is a waiter, and this is the only one.
        let pending = unsafe { Pending::new(job.ptr) };
        (job, pending)
    }

    /// Sends it, to be handed to `sink` when it is complete.
    pub fn send_to(self, sink: impl Into<SinkRef<T>>) -> Job<T> {
        self.to(Dest::Sink(sink.into()))
    }

    fn to(mut self, dest: Dest<T>) -> Job<T> {
        self.unkeyed().sent();
        let ptr = self.into_ptr();
        // SAFETY: this handle owned the node. The old destination was `Nobody`.
        unsafe { ptr.set_dest(dest) };
        // SAFETY: the node is alive. Who may write it later got the node from here, so no order is needed.
        unsafe { ptr.recall() }.store(Recall::No as u8, Ordering::Relaxed);
        Job { ptr }
    }

    fn into_ptr(self) -> Ptr<T> {
        mem::ManuallyDrop::new(self).ptr
    }
}

impl<T: Body> Drop for Own<T> {
    fn drop(&mut self) {
        // SAFETY: this handle owns the node and is gone after this. What is at rest has no destination.
        unsafe { self.ptr.go_home() }
    }
}

/// A message on its way, in a receiver's hand: complete it, pass it on, queue it, or split it.
///
/// A job dropped by a careless receiver completes as [orphaned](Body::orphaned), so nobody waits for ever. For
/// `&mut T` see [`Own`].
pub struct Job<T: Body> {
    ptr: Ptr<T>,
}

// SAFETY: as for `Own`.
unsafe impl<T: Body> Send for Job<T> {}
// SAFETY: `&Job` gives `&T` and no more.
unsafe impl<T: Body + Sync> Sync for Job<T> {}

impl<T: Body> Job<T> {
    /// The body, for whoever can show its [key](Body::Key).
    pub fn body_mut(&mut self, key: T::Key) -> &mut T {
        let _ = key;
        self.unkeyed()
    }

    /// For the carrier's calls of the body's own methods.
    fn unkeyed(&mut self) -> &mut T {
        // SAFETY: this handle owns the node and is borrowed mutably. A `Pending` never touches the body.
        unsafe { self.ptr.body_mut() }
    }

    /// Hands the job to its destination, through the hooks on its way. Never blocks.
    ///
    /// A child that was its parent's last completes the parent too: in a loop, so the stack does not grow with the
    /// depth of splits or the number of hooks.
    pub fn complete(self) {
        let mut job = self;
        loop {
            if let Some(hook) = job.unkeyed().pop_hook() {
                match hook.passing(job) {
                    Some(next) => job = next,
                    None => return,
                }
                continue;
            }
            // SAFETY: this handle owns the node.
            let dest = unsafe { job.ptr.set_dest(Dest::Nobody) };
            match dest {
                Dest::Nobody => return drop(job.arrived()),
                // SAFETY: the destination was a waiter, so a `Pending` exists, and this is the one delivery to it.
                Dest::Waiter => return unsafe { pending::deliver(job.into_ptr()) },
                Dest::Sink(sink) => return sink.accept(job.arrived()),
                Dest::Parent(share) => {
                    // Declared after `share`, so that a panic below drops it first: the child may point into the
                    // parent, and goes home before the parent may move.
                    let mut child = job.arrived();
                    child.unkeyed().child_done(share.shared());
                    drop(child);
                    match share.release() {
                        Some(parent) => job = parent,
                        None => return,
                    }
                }
            }
        }
    }

    /// Ends it without an answer: a receiver that was asked to [abort](Pending::abort) it, a port that is closed.
    pub fn refuse(mut self, why: Unanswered) {
        self.unkeyed().unanswered(why);
        self.complete();
    }

    pub(crate) fn mark(&mut self, why: Unanswered) {
        self.unkeyed().unanswered(why);
    }

    pub(crate) fn receipt(&mut self) -> Option<Waker> {
        self.unkeyed().take_receipt()
    }

    pub(crate) fn recalled(&self) -> Recall {
        // Relaxed: it is a wish, and no data comes with it. That a wish is seen in time is the port's order.
        // SAFETY: this handle owns the node.
        match unsafe { self.ptr.recall() }.load(Ordering::Relaxed) {
            r if r == Recall::Abort as u8 => Recall::Abort,
            r if r == Recall::Withdraw as u8 => Recall::Withdraw,
            _ => Recall::No,
        }
    }

    /// Completes it into the hand of the originator, who holds `pending` and waits no further: no atomic operation.
    ///
    /// Gives `pending` back if this is not its job, which is then completed like any other, or if a hook keeps it.
    pub(crate) fn rejoin(self, pending: Pending<T>) -> Result<Own<T>, Pending<T>> {
        let mut job = self;
        while let Some(hook) = job.unkeyed().pop_hook() {
            match hook.passing(job) {
                Some(next) => job = next,
                None => return Err(pending),
            }
        }
        if !pending.is_of(job.ptr) {
            job.complete();
            return Err(pending);
        }
        pending.forget();
        // SAFETY: this handle owns the node. Its destination was the waiter, which is gone without having looked.
        unsafe { job.ptr.set_dest(Dest::Nobody) };
        Ok(job.arrived())
    }

    /// Freezes this job, to answer it by [children](Family::adopt).
    pub fn split(self) -> Family<T> {
        Family::new(self)
    }

    /// The destination was taken out: what is left is at rest.
    fn arrived(self) -> Own<T> {
        Own { ptr: self.into_ptr() }
    }

    fn into_ptr(self) -> Ptr<T> {
        mem::ManuallyDrop::new(self).ptr
    }
}

impl<T: Body> Drop for Job<T> {
    fn drop(&mut self) {
        self.unkeyed().orphaned();
        // This handle is gone after `drop`: the new one takes its place.
        Job { ptr: self.ptr }.complete();
    }
}

impl<T: Body> Deref for Own<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this handle owns the node and is borrowed.
        unsafe { self.ptr.body() }
    }
}

impl<T: Plain> DerefMut for Own<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.body_mut(())
    }
}

impl<T: Body> Deref for Job<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this handle owns the node and is borrowed. A `Pending` never touches the body.
        unsafe { self.ptr.body() }
    }
}

impl<T: Plain> DerefMut for Job<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.body_mut(())
    }
}

impl<T: Body + fmt::Debug> fmt::Debug for Own<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Own").field(&**self).finish()
    }
}

impl<T: Body + fmt::Debug> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Job").field(&**self).finish()
    }
}
