//! The queue behind the family's blocking locks: waiters that live in pinned futures, linked both ways, so that one in
//! the middle can leave. Waiting allocates nothing.
//!
//! A [`Waiter`] belongs to one queue and is in it from [`push_back`](Locked::push_back) until it [leaves](Locked::leave),
//! by itself or when it is dropped. A waiter's content is only touched by whoever has its queue locked. That, and that a
//! waiter is pinned, are the two facts that the `SAFETY` comments here rest on.
//!
//! What a lock does with it: see [`WaitLock`](super::WaitLock), and the locks of `lwkt`.

use core::fmt;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::{self, NonNull};
// `core`'s atomic, not the facade's: no order hangs on it.
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;

use super::cell::UnsafeCell;
use super::lock::{Lock, LockGuard};

/// Waiters in order of arrival. `K` is what a waiter wants of the lock.
pub struct WaitQueue<K> {
    list: Lock<List<K>>,
}

/// A place for one waiter, in its turn part of a pinned future.
///
/// Dropping it takes it out of the queue. A lock that has given it something looks after that before.
pub struct Waiter<'q, K> {
    queue: &'q WaitQueue<K>,
    node: Node<K>,
    /// It is not outside. Written with the queue locked, by the waiter's owner only.
    entered: AtomicBool,
    // The queue points to `node`.
    _pinned: PhantomPinned,
}

/// Where a waiter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not in the queue.
    Outside,
    /// In the queue, waiting.
    Inside,
    /// Taken out of the queue and given what it waited for.
    Chosen,
    /// Taken out of the queue and given nothing.
    Refused,
}

/// A queue that is locked. Wakers are other people's code: they are cloned before, and called and dropped after.
pub struct Locked<'q, K> {
    queue: &'q WaitQueue<K>,
    list: LockGuard<'q, List<K>>,
}

impl<K: Copy> WaitQueue<K> {
    /// An empty queue.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { list: Lock::new(List::new()) }
    }

    /// An empty queue.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { list: Lock::new(List::new()) }
    }

    /// Locks the queue. Nothing but its own methods is called while it is locked.
    pub fn lock(&self) -> Locked<'_, K> {
        Locked { queue: self, list: self.list.lock() }
    }

    /// A waiter of this queue, outside.
    pub fn waiter(&self) -> Waiter<'_, K> {
        Waiter { queue: self, node: Node::new(), entered: AtomicBool::new(false), _pinned: PhantomPinned }
    }
}

impl<K: Copy> Locked<'_, K> {
    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.list.first.is_none()
    }

    /// Exactly one waits.
    pub fn has_one(&self) -> bool {
        self.list.first.is_some() && self.list.first == self.list.last
    }

    /// What the first one wants.
    pub fn first(&mut self) -> Option<K> {
        let first = self.list.first?;
        self.list.with_linked(first, |content| content.kind)
    }

    /// Where `waiter` is.
    pub fn place(&mut self, waiter: Pin<&Waiter<'_, K>>) -> Place {
        self.check(waiter);
        self.list.with(&waiter.node, |content| content.place)
    }

    /// Puts `waiter` behind all others. One that is not outside stays where it is.
    pub fn push_back(&mut self, waiter: Pin<&Waiter<'_, K>>, kind: K, waker: Waker) {
        if self.enter(waiter) {
            // SAFETY: the waiter is pinned, and leaves before its memory goes.
            unsafe { self.list.push_back(&waiter.get_ref().node, kind, waker) };
        }
    }

    /// Puts `waiter` before all others. One that is not outside stays where it is.
    pub fn push_front(&mut self, waiter: Pin<&Waiter<'_, K>>, kind: K, waker: Waker) {
        if self.enter(waiter) {
            // SAFETY: the waiter is pinned, and leaves before its memory goes.
            unsafe { self.list.push_front(&waiter.get_ref().node, kind, waker) };
        }
    }

    fn enter(&mut self, waiter: Pin<&Waiter<'_, K>>) -> bool {
        let outside = self.place(waiter) == Place::Outside;
        waiter.entered.store(true, Ordering::Relaxed);
        outside
    }

    /// Gives a waiting one another waker. Returns the one that is to be dropped.
    pub fn replace_waker(&mut self, waiter: Pin<&Waiter<'_, K>>, waker: Waker) -> Option<Waker> {
        self.check(waiter);
        self.list.with(&waiter.node, |content| match content.place {
            Place::Inside => content.waker.replace(waker),
            _ => Some(waker),
        })
    }

    /// Takes the first one out as [`Place::Chosen`]. Returns its waker, to be called.
    pub fn choose(&mut self) -> Option<Waker> {
        let first = self.list.first?;
        self.list.take_out(first, Place::Chosen)
    }

    /// Takes the first one out as [`Place::Refused`] that `which` says. Returns its waker, to be called.
    pub fn refuse_first(&mut self, which: impl Fn(K) -> bool) -> Option<Waker> {
        let mut next = self.list.first;
        while let Some(node) = next {
            let (found, after) =
                self.list.with_linked(node, |content| (content.kind.is_some_and(&which), content.next));
            if found {
                return self.list.take_out(node, Place::Refused);
            }
            next = after;
        }
        None
    }

    /// Takes `waiter` out as [`Place::Refused`] if it is inside. Returns its waker, to be called.
    pub fn refuse(&mut self, waiter: Pin<&Waiter<'_, K>>) -> Option<Waker> {
        if self.place(waiter) != Place::Inside {
            return None;
        }
        self.list.take_out(NonNull::from(&waiter.get_ref().node), Place::Refused)
    }

    /// Puts `waiter` outside, wherever it was. Returns its waker, to be dropped.
    pub fn leave(&mut self, waiter: Pin<&Waiter<'_, K>>) -> Option<Waker> {
        self.check(waiter);
        waiter.entered.store(false, Ordering::Relaxed);
        self.list.leave(&waiter.get_ref().node)
    }

    /// # Panics
    /// If the waiter is another queue's: its content would be somebody else's.
    #[inline]
    fn check(&self, waiter: Pin<&Waiter<'_, K>>) {
        assert!(ptr::eq(waiter.queue, self.queue), "a waiter of another queue");
    }
}

impl<K> Waiter<'_, K> {
    /// It is not outside: it waits, or was given or refused what it waited for. By its owner only.
    pub fn has_entered(&self) -> bool {
        self.entered.load(Ordering::Relaxed)
    }
}

impl<K> Drop for Waiter<'_, K> {
    fn drop(&mut self) {
        if *self.entered.get_mut() {
            let waker = self.queue.list.lock().leave(&self.node);
            drop(waker);
        }
    }
}

impl<K: Copy> Default for WaitQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> fmt::Debug for WaitQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for Waiter<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").finish_non_exhaustive()
    }
}

impl<K> fmt::Debug for Locked<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locked").finish_non_exhaustive()
    }
}

struct Node<K>(UnsafeCell<Content<K>>);

struct Content<K> {
    place: Place,
    previous: Option<NonNull<Node<K>>>,
    next: Option<NonNull<Node<K>>>,
    kind: Option<K>,
    waker: Option<Waker>,
}

// SAFETY: a node's content is touched by whoever has its queue locked, and what is in it besides links is `Send`.
unsafe impl<K: Send> Send for Node<K> {}
// SAFETY: as above; nothing can be done through `&Node` alone.
unsafe impl<K: Send> Sync for Node<K> {}

impl<K> Node<K> {
    fn new() -> Self {
        Self(UnsafeCell::new(Content {
            place: Place::Outside,
            previous: None,
            next: None,
            kind: None,
            waker: None,
        }))
    }
}

struct List<K> {
    first: Option<NonNull<Node<K>>>,
    last: Option<NonNull<Node<K>>>,
}

// SAFETY: the nodes pointed to are touched by whoever has `&mut List` only, and hold a `Waker` and a `K`.
unsafe impl<K: Send> Send for List<K> {}

impl<K> List<K> {
    const fn new() -> Self {
        Self { first: None, last: None }
    }

    /// # Safety
    /// `node`, which is outside, stays where it is in memory until it is outside again.
    unsafe fn push_back(&mut self, node: &Node<K>, kind: K, waker: Waker) {
        let last = self.last.replace(NonNull::from(node));
        self.with(node, |content| content.fill(last, None, kind, waker));
        match last {
            Some(last) => self.with_linked(last, |content| content.next = Some(NonNull::from(node))),
            None => self.first = Some(NonNull::from(node)),
        }
    }

    /// # Safety
    /// As for `push_back`.
    unsafe fn push_front(&mut self, node: &Node<K>, kind: K, waker: Waker) {
        let first = self.first.replace(NonNull::from(node));
        self.with(node, |content| content.fill(None, first, kind, waker));
        match first {
            Some(first) => self.with_linked(first, |content| content.previous = Some(NonNull::from(node))),
            None => self.last = Some(NonNull::from(node)),
        }
    }

    /// Takes a node out that is in the list; `place` is where it is then.
    fn take_out(&mut self, node: NonNull<Node<K>>, place: Place) -> Option<Waker> {
        let (previous, next, waker) = self.with_linked(node, |content| {
            content.place = place;
            (content.previous.take(), content.next.take(), content.waker.take())
        });
        match previous {
            Some(previous) => self.with_linked(previous, |content| content.next = next),
            None => self.first = next,
        }
        match next {
            Some(next) => self.with_linked(next, |content| content.previous = previous),
            None => self.last = previous,
        }
        waker
    }

    fn leave(&mut self, node: &Node<K>) -> Option<Waker> {
        match self.with(node, |content| content.place) {
            Place::Inside => self.take_out(NonNull::from(node), Place::Outside),
            _ => self.with(node, |content| {
                content.place = Place::Outside;
                content.waker.take()
            }),
        }
    }

    fn with<R>(&mut self, node: &Node<K>, f: impl FnOnce(&mut Content<K>) -> R) -> R {
        // SAFETY: `&mut self` says that the queue is locked, so nobody else touches a node of this queue.
        node.0.with_mut(|content| f(unsafe { &mut *content }))
    }

    fn with_linked<R>(&mut self, node: NonNull<Node<K>>, f: impl FnOnce(&mut Content<K>) -> R) -> R {
        // SAFETY: a linked node is in its place in memory, by the promise made to `push_back` and `push_front`.
        let node = unsafe { node.as_ref() };
        self.with(node, f)
    }
}

impl<K> Content<K> {
    fn fill(
        &mut self,
        previous: Option<NonNull<Node<K>>>,
        next: Option<NonNull<Node<K>>>,
        kind: K,
        waker: Waker,
    ) {
        *self = Self { place: Place::Inside, previous, next, kind: Some(kind), waker: Some(waker) };
    }
}
