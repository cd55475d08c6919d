//! [`Scatter`]: several pieces of memory in one request.

use alloc::vec::{Drain, Vec};
use core::fmt;
use core::ptr::NonNull;

use super::owned::{AllocError, Buf};
use super::shared::Frozen;

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Buf {}
    impl Sealed for super::Frozen {}
}

/// What a [`Scatter`] is a list of: [`Buf`] or [`Frozen`].
pub trait Part: sealed::Sealed + Send + Sync + 'static {
    /// Address and length.
    #[doc(hidden)]
    fn raw(&self) -> (NonNull<u8>, usize);
}

impl Part for Buf {
    fn raw(&self) -> (NonNull<u8>, usize) {
        Buf::raw(self)
    }
}

impl Part for Frozen {
    fn raw(&self) -> (NonNull<u8>, usize) {
        Frozen::raw(self)
    }
}

/// A list of buffers for one request: a cluster of cache pages.
///
/// The room for the list is allocated once, by [`Self::with_capacity`], and comes back with the request, so a list that
/// is emptied and filled again allocates nothing.
pub struct Scatter<T: Part> {
    parts: Vec<T>,
    bytes: usize,
}

/// Several unique buffers, for reads and writes.
pub type BufVec = Scatter<Buf>;
/// Several frozen pages, for the write-back of a cluster.
pub type FrozenVec = Scatter<Frozen>;

impl<T: Part> Scatter<T> {
    /// An empty list with room for `parts` buffers.
    pub fn with_capacity(parts: usize) -> Result<Self, AllocError> {
        let mut list = Vec::new();
        list.try_reserve_exact(parts)
            .map_err(|_| AllocError { len: parts.saturating_mul(size_of::<T>()), align: align_of::<T>() })?;
        Ok(Self { parts: list, bytes: 0 })
    }

    /// Appends `part`, or gives it back if the list is full (of parts, or of bytes: at most `isize::MAX`).
    pub fn push(&mut self, part: T) -> Result<(), T> {
        let bytes = self.bytes.checked_add(part.raw().1).filter(|&sum| sum <= isize::MAX as usize);
        match bytes {
            Some(bytes) if self.parts.len() < self.parts.capacity() => {
                self.bytes = bytes;
                self.parts.push(part);
                Ok(())
            }
            _ => Err(part),
        }
    }

    /// Takes the last buffer off.
    pub fn pop(&mut self) -> Option<T> {
        let part = self.parts.pop()?;
        self.bytes -= part.raw().1;
        Some(part)
    }

    /// Takes all buffers out, front to back; the room stays.
    pub fn drain(&mut self) -> Drain<'_, T> {
        self.bytes = 0;
        self.parts.drain(..)
    }

    /// The buffers, front to back.
    pub fn parts(&self) -> &[T] {
        &self.parts
    }

    /// Bytes in all buffers together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many buffers there is room for.
    pub fn capacity(&self) -> usize {
        self.parts.capacity()
    }
}

impl BufVec {
    /// The `index`-th buffer, for writing into it.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        self.parts.get_mut(index).map(|b| &mut **b)
    }
}

impl<T: Part> fmt::Debug for Scatter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scatter").field("parts", &self.parts.len()).field("bytes", &self.bytes).finish()
    }
}
