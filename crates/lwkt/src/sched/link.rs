//! Atomic references to things that are never freed.

use core::ptr;

use dfly_hal::sync::atomic::{AtomicPtr, Ordering};

/// An `Option<&'static T>` that several CPUs may touch.
pub(crate) struct AtomicRef<T: Sync + 'static>(AtomicPtr<T>);

impl<T: Sync> AtomicRef<T> {
    pub(crate) fn none() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> Option<&'static T> {
        // SAFETY: the pointer is null or was made of a `&'static T`.
        unsafe { self.0.load(order).as_ref() }
    }

    #[inline]
    pub(crate) fn store(&self, target: Option<&'static T>, order: Ordering) {
        self.0.store(target.map_or(ptr::null_mut(), |target| ptr::from_ref(target).cast_mut()), order);
    }
}

/// The head of a wake list: a first node, or the reason why there is none.
pub(crate) struct AtomicHead<T: Sync + 'static>(AtomicPtr<T>);

/// What an [`AtomicHead`] says.
pub(crate) enum Head<T: Sync + 'static> {
    /// The list is empty.
    Empty,
    /// It is empty, and its owner sleeps or is about to.
    Asleep,
    /// It takes no more.
    Closed,
    /// The node that was pushed last.
    Node(&'static T),
}

impl<T: Sync> Clone for Head<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Sync> Copy for Head<T> {}

impl<T: Sync> Head<T> {
    /// Addresses that no node has.
    const ASLEEP: usize = 1;
    const CLOSED: usize = 2;

    fn encode(self) -> *mut T {
        match self {
            Self::Empty => ptr::null_mut(),
            Self::Asleep => ptr::without_provenance_mut(Self::ASLEEP),
            Self::Closed => ptr::without_provenance_mut(Self::CLOSED),
            Self::Node(node) => ptr::from_ref(node).cast_mut(),
        }
    }

    fn decode(ptr: *mut T) -> Self {
        const { assert!(align_of::<T>() > Self::CLOSED) };
        match ptr.addr() {
            0 => Self::Empty,
            Self::ASLEEP => Self::Asleep,
            Self::CLOSED => Self::Closed,
            // SAFETY: what is none of these was made of a `&'static T`.
            _ => Self::Node(unsafe { &*ptr }),
        }
    }

    pub(crate) fn node(self) -> Option<&'static T> {
        match self {
            Self::Node(node) => Some(node),
            _ => None,
        }
    }
}

impl<T: Sync> AtomicHead<T> {
    pub(crate) fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn load(&self, order: Ordering) -> Head<T> {
        Head::decode(self.0.load(order))
    }

    #[inline]
    pub(crate) fn swap(&self, head: Head<T>, order: Ordering) -> Head<T> {
        Head::decode(self.0.swap(head.encode(), order))
    }

    /// Replaces `seen` by `new` with order `success`; `Err` says what is there instead.
    #[inline]
    pub(crate) fn exchange(&self, seen: Head<T>, new: Head<T>, success: Ordering) -> Result<(), Head<T>> {
        let result = self.0.compare_exchange(seen.encode(), new.encode(), success, Ordering::Relaxed);
        result.map(drop).map_err(Head::decode)
    }
}
