//! Where a pool's nodes come home to: pushed by anybody, taken in whole, closed once.

use core::ptr::{self, NonNull};

use dfly_hal::sync::atomic::{AtomicPtr, Ordering};

use super::{Node, Own, Ptr};
use crate::body::Body;

/// Only an atomic: a thread that has pushed may find the stack freed before its call returns.
pub(crate) struct Stack<T: Body> {
    head: AtomicPtr<Node<T>>,
}

/// What [`Stack::take`] gives: nodes at rest, linked, last pushed first.
pub(crate) struct Pile<T: Body> {
    head: Option<Ptr<T>>,
}

// SAFETY: it owns its nodes as `Own` does.
unsafe impl<T: Body> Send for Pile<T> {}

impl<T: Body> Stack<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The head of a closed stack: an address that no node has.
    fn closed() -> *mut Node<T> {
        ptr::without_provenance_mut(1)
    }

    /// Pushes the node; returns whether it was refused, because the stack is closed.
    ///
    /// # Safety
    /// The caller owns the node, which is at rest, and gives it up unless it is refused.
    pub(super) unsafe fn push(&self, node: Ptr<T>) -> bool {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == Self::closed() {
                return true;
            }
            // SAFETY: the caller owns the node until the exchange succeeds.
            unsafe { node.set_link(NonNull::new(head).map(Ptr)) };
            // Release pairs with the Acquire of `take`: whoever takes the node sees its link and its body.
            match self.head.compare_exchange_weak(head, node.0.as_ptr(), Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return false,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all there is.
    pub(crate) fn take(&self) -> Pile<T> {
        if self.head.load(Ordering::Relaxed).is_null() {
            return Pile { head: None };
        }
        self.take_and_leave(ptr::null_mut())
    }

    /// Takes all there is and refuses what comes after.
    pub(crate) fn close(&self) -> Pile<T> {
        self.take_and_leave(Self::closed())
    }

    fn take_and_leave(&self, head: *mut Node<T>) -> Pile<T> {
        let taken = self.head.swap(head, Ordering::Acquire);
        let taken = if taken == Self::closed() { None } else { NonNull::new(taken) };
        Pile { head: taken.map(Ptr) }
    }
}

impl<T: Body> Pile<T> {
    pub(crate) const fn new() -> Self {
        Self { head: None }
    }

    pub(crate) fn pop(&mut self) -> Option<Own<T>> {
        let ptr = self.head?;
        // SAFETY: the pile owns its nodes.
        self.head = unsafe { ptr.link() };
        Some(Own { ptr })
    }
}

impl<T: Body> Drop for Pile<T> {
    fn drop(&mut self) {
        while let Some(own) = self.pop() {
            drop(own);
        }
    }
}
