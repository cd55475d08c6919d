//! The queue of a [`WaitLock`](super::WaitLock): nodes that live in pinned futures, linked both ways, so that one in the
//! middle can leave.
//!
//! A node's content is only touched through the queue that it belongs to, by `&mut Queue`, which is had by holding the
//! queue's lock. That is the one fact that the `SAFETY` comments here rest on.

use core::ptr::NonNull;
use core::task::Waker;

use super::cell::UnsafeCell;

/// Where a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not in the queue.
    Outside,
    /// In the queue, waiting.
    Inside,
    /// Taken out of the queue and given the lock.
    Chosen,
}

struct Content {
    place: Place,
    previous: Option<NonNull<Node>>,
    next: Option<NonNull<Node>>,
    waker: Option<Waker>,
}

/// A place for one waiter.
pub(super) struct Node(UnsafeCell<Content>);

impl Node {
    pub(super) fn new() -> Self {
        Self(UnsafeCell::new(Content { place: Place::Outside, previous: None, next: None, waker: None }))
    }
}

/// First in, first out.
pub(super) struct Queue {
    first: Option<NonNull<Node>>,
    last: Option<NonNull<Node>>,
}

// SAFETY: the nodes pointed to are touched by whoever has `&mut Queue` only, and hold nothing but a `Waker`.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) const fn new() -> Self {
        Self { first: None, last: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn place(&mut self, node: &Node) -> Place {
        self.with(node, |content| content.place)
    }

    /// Puts `node`, which is outside, at the end.
    ///
    /// # Safety
    /// `node` stays where it is in memory until it is outside again.
    pub(super) unsafe fn push(&mut self, node: &Node, waker: Waker) {
        let last = self.last.replace(NonNull::from(node));
        self.with(node, |content| {
            *content = Content { place: Place::Inside, previous: last, next: None, waker: Some(waker) };
        });
        match last {
            Some(last) => self.with_linked(last, |content| content.next = Some(NonNull::from(node))),
            None => self.first = Some(NonNull::from(node)),
        }
    }

    /// Takes the first node out as the chosen one and returns its waker.
    pub(super) fn choose(&mut self) -> Option<Waker> {
        let first = self.first?;
        let (next, waker) = self.with_linked(first, |content| {
            content.place = Place::Chosen;
            (content.next.take(), content.waker.take())
        });
        self.first = next;
        match next {
            Some(next) => self.with_linked(next, |content| content.previous = None),
            None => self.last = None,
        }
        waker
    }

    /// Gives a waiting node another waker; returns the old one, to be dropped outside the lock.
    pub(super) fn replace_waker(&mut self, node: &Node, waker: Waker) -> Option<Waker> {
        self.with(node, |content| content.waker.replace(waker))
    }

    /// Puts a node outside, wherever it was; returns its waker, to be dropped outside the lock.
    pub(super) fn leave(&mut self, node: &Node) -> Option<Waker> {
        let (was, previous, next, waker) = self.with(node, |content| {
            let was = core::mem::replace(&mut content.place, Place::Outside);
            (was, content.previous.take(), content.next.take(), content.waker.take())
        });
        if was == Place::Inside {
            match previous {
                Some(previous) => self.with_linked(previous, |content| content.next = next),
                None => self.first = next,
            }
            match next {
                Some(next) => self.with_linked(next, |content| content.previous = previous),
                None => self.last = previous,
            }
        }
        waker
    }

    fn with<R>(&mut self, node: &Node, f: impl FnOnce(&mut Content) -> R) -> R {
        // SAFETY: `&mut self` says that the queue's lock is held, so nobody else touches a node of this queue.
        node.0.with_mut(|content| f(unsafe { &mut *content }))
    }

    fn with_linked<R>(&mut self, node: NonNull<Node>, f: impl FnOnce(&mut Content) -> R) -> R {
        // SAFETY: a linked node is in its place in memory, by the promise made to `push`.
        let node = unsafe { node.as_ref() };
        self.with(node, f)
    }
}
