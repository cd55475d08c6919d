//! A queue made of the nodes' own links.

use core::fmt;
use core::mem;

use super::{Job, Own, Ptr};
use crate::body::Body;

/// [`Own`] or [`Job`]: a handle that owns a node, and so can stand in a [`Fifo`].
pub trait Handle: sealed::Sealed<T = Self::Body> {
    /// What the node carries.
    type Body: Body;
}

mod sealed {
    pub trait Sealed: Sized {
        type T: super::Body;
        fn into_ptr(self) -> super::Owned<Self::T>;
        /// # Safety
        /// The pointer came from `into_ptr` of the same type, and is used once.
        unsafe fn from_ptr(ptr: super::Owned<Self::T>) -> Self;
    }
}

/// Hides `Ptr` in the sealed trait's signature.
pub struct Owned<T: Body>(Ptr<T>);

impl<T: Body> Handle for Own<T> {
    type Body = T;
}

impl<T: Body> Handle for Job<T> {
    type Body = T;
}

impl<T: Body> sealed::Sealed for Own<T> {
    type T = T;
    fn into_ptr(self) -> Owned<T> {
        Owned(self.into_ptr())
    }
    unsafe fn from_ptr(ptr: Owned<T>) -> Self {
        Self { ptr: ptr.0 }
    }
}

impl<T: Body> sealed::Sealed for Job<T> {
    type T = T;
    fn into_ptr(self) -> Owned<T> {
        Owned(self.into_ptr())
    }
    unsafe fn from_ptr(ptr: Owned<T>) -> Self {
        Self { ptr: ptr.0 }
    }
}

/// An owned first-in-first-out queue of jobs ([`List`](crate::List)) or of messages ([`Returned`](crate::Returned)).
///
/// It allocates nothing: the nodes are linked through themselves. What is left in it when it is dropped, is dropped.
pub struct Fifo<H: Handle> {
    ends: Option<Ends<H::Body>>,
    len: usize,
}

struct Ends<T: Body> {
    head: Ptr<T>,
    tail: Ptr<T>,
}

// SAFETY: it owns its nodes as the handles would.
unsafe impl<H: Handle + Send> Send for Fifo<H> {}
// SAFETY: `&Fifo` gives `&T` and no more.
unsafe impl<H: Handle + Sync> Sync for Fifo<H> {}

impl<H: Handle> Fifo<H> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { ends: None, len: 0 }
    }

    /// Puts `h` at the end.
    pub fn push(&mut self, h: H) {
        let Owned(ptr) = h.into_ptr();
        // SAFETY: the handle owned the node.
        unsafe { ptr.set_link(None) };
        self.link(Ends { head: ptr, tail: ptr }, 1);
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<H> {
        let ends = self.ends.as_mut()?;
        let ptr = ends.head;
        // SAFETY: the queue owns its nodes.
        match unsafe { ptr.link() } {
            Some(next) => ends.head = next,
            None => self.ends = None,
        }
        self.len -= 1;
        // SAFETY: it came in as an `H`, and is linked no more.
        Some(unsafe { H::from_ptr(Owned(ptr)) })
    }

    /// Moves all of `other` to the end, in order, in constant time.
    pub fn append(&mut self, other: &mut Self) {
        let Self { ends, len } = other;
        if let Some(more) = ends.take() {
            self.link(more, mem::take(len));
        }
    }

    /// Takes out all that `which` picks, in order; the others stay, in order. Looks at each: linear in the length.
    pub fn extract(&mut self, mut which: impl FnMut(&H) -> bool) -> Self {
        let (mut stay, mut out) = (Self::new(), Self::new());
        while let Some(h) = self.pop() {
            if which(&h) { out.push(h) } else { stay.push(h) }
        }
        *self = stay;
        out
    }

    /// Puts `h` at the front.
    pub(crate) fn push_front(&mut self, h: H) {
        let Owned(ptr) = h.into_ptr();
        self.len += 1;
        let next = self.ends.as_ref().map(|ends| ends.head);
        // SAFETY: the handle owned the node.
        unsafe { ptr.set_link(next) };
        match &mut self.ends {
            Some(ends) => ends.head = ptr,
            None => self.ends = Some(Ends { head: ptr, tail: ptr }),
        }
    }

    /// The body of the first.
    pub fn peek(&self) -> Option<&H::Body> {
        // SAFETY: the queue owns its nodes and is borrowed.
        self.ends.as_ref().map(|ends| unsafe { ends.head.body() })
    }

    /// How many are queued.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Is none queued?
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn link(&mut self, more: Ends<H::Body>, len: usize) {
        self.len += len;
        match &mut self.ends {
            Some(ends) => {
                // SAFETY: the queue owns its nodes.
                unsafe { ends.tail.set_link(Some(more.head)) };
                ends.tail = more.tail;
            }
            None => self.ends = Some(more),
        }
    }
}

impl<H: Handle> Drop for Fifo<H> {
    fn drop(&mut self) {
        while let Some(h) = self.pop() {
            // Should this one panic, then `rest` drops the others: no waiter hangs.
            let rest = mem::take(self);
            drop(h);
            *self = rest;
        }
    }
}

impl<H: Handle> Default for Fifo<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Handle> From<H> for Fifo<H> {
    fn from(h: H) -> Self {
        let mut list = Self::new();
        list.push(h);
        list
    }
}

impl<H: Handle> Extend<H> for Fifo<H> {
    fn extend<I: IntoIterator<Item = H>>(&mut self, iter: I) {
        iter.into_iter().for_each(|h| self.push(h));
    }
}

impl<H: Handle> FromIterator<H> for Fifo<H> {
    fn from_iter<I: IntoIterator<Item = H>>(iter: I) -> Self {
        let mut list = Self::new();
        list.extend(iter);
        list
    }
}

/// Pops from the front, so what the loop leaves is dropped with it.
impl<H: Handle> Iterator for Fifo<H> {
    type Item = H;
    fn next(&mut self) -> Option<H> {
        self.pop()
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<H: Handle> ExactSizeIterator for Fifo<H> {}

impl<H: Handle> fmt::Debug for Fifo<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fifo").field("len", &self.len).finish_non_exhaustive()
    }
}
