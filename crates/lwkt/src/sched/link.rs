//! Atomic references to things that are never freed.

use core::ptr::{self, NonNull};

use dfly_hal::sync::atomic::{AtomicPtr, Ordering};

/// An `Option<&'static T>` that several CPUs may touch. Who loads it sees what it points to as who stored it did.
pub(crate) struct AtomicRef<T: Sync + 'static>(AtomicPtr<T>);

impl<T: Sync> AtomicRef<T> {
    pub(crate) fn none() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn load(&self) -> Option<&'static T> {
        // SAFETY: the pointer is null or was made of a `&'static T`, whose making was released by `store`, or by the
        // push before a `Head::take`.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    #[inline]
    pub(crate) fn store(&self, target: Option<&'static T>) {
        self.0.store(
            target.map_or(ptr::null_mut(), |target| ptr::from_ref(target).cast_mut()),
            Ordering::Release,
        );
    }
}

/// An `Option<&'static T>` of one CPU's own. On `core`'s atomic and not the facade's: no order hangs on it, and a model
/// need not look at it.
pub(crate) struct OwnRef<T: Sync + 'static>(core::sync::atomic::AtomicPtr<T>);

impl<T: Sync> OwnRef<T> {
    pub(crate) fn none() -> Self {
        Self(core::sync::atomic::AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        // SAFETY: as for `AtomicRef::load`.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    #[inline]
    pub(crate) fn set(&self, target: Option<&'static T>) {
        let target = target.map_or(ptr::null_mut(), |target| ptr::from_ref(target).cast_mut());
        self.0.store(target, Ordering::Release);
    }
}

/// The head of a list that anybody pushes to, and that is taken in whole.
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
    Node(Unseen<T>),
}

/// A node that others have pushed, and that nobody has looked at who only saw its address.
pub(crate) struct Unseen<T>(NonNull<T>);

impl<T> Clone for Unseen<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Unseen<T> {}

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
            Self::Node(Unseen(node)) => node.as_ptr(),
        }
    }

    fn decode(ptr: *mut T) -> Self {
        const { assert!(align_of::<T>() > Self::CLOSED) };
        match (NonNull::new(ptr), ptr.addr()) {
            (None, _) => Self::Empty,
            (_, Self::ASLEEP) => Self::Asleep,
            (_, Self::CLOSED) => Self::Closed,
            (Some(node), _) => Self::Node(Unseen(node)),
        }
    }
}

impl<T: Sync> AtomicHead<T> {
    pub(crate) fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn load(&self) -> Head<T> {
        Head::decode(self.0.load(Ordering::Relaxed))
    }

    /// Replaces `seen` by `new`; `Err` says what is there instead.
    #[inline]
    pub(crate) fn exchange(&self, seen: Head<T>, new: Head<T>) -> Result<(), Head<T>> {
        let new = new.encode();
        let result = self.0.compare_exchange(seen.encode(), new, Ordering::Relaxed, Ordering::Relaxed);
        result.map(drop).map_err(Head::decode)
    }

    /// Replaces `seen` by `node`, which links to `seen`; `Err` says what is there instead.
    #[inline]
    pub(crate) fn push(&self, seen: Head<T>, node: &'static T, link: &AtomicRef<T>) -> Result<(), Head<T>> {
        let next = if let Head::Node(Unseen(next)) = seen { next.as_ptr() } else { ptr::null_mut() };
        link.0.store(next, Ordering::Relaxed);
        let node = ptr::from_ref(node).cast_mut();
        // Release: who takes the node sees its link and all that was done to it (pairs with `take`; the pushes in between
        // are read-modify-writes, so this holds for each node of the list).
        let result = self.0.compare_exchange(seen.encode(), node, Ordering::Release, Ordering::Relaxed);
        result.map(drop).map_err(Head::decode)
    }

    /// Takes the list and leaves `new`. Its first node links to the others.
    #[inline]
    pub(crate) fn take(&self, new: Head<T>) -> Option<&'static T> {
        // Acquire: see `push`.
        match Head::decode(self.0.swap(new.encode(), Ordering::Acquire)) {
            // SAFETY: made of a `&'static T` by `push`, which has released it.
            Head::Node(Unseen(node)) => Some(unsafe { node.as_ref() }),
            _ => None,
        }
    }
}
