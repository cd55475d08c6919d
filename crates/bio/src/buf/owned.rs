//! [`Buf`]: a unique, mutable piece of memory with any owner behind it.

use alloc::boxed::Box;
use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

use super::shared::{self, SharedBuf};

/// Memory could not be had: the allocator refused, or size and alignment make no valid layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for {len} bytes aligned to {align}")]
#[non_exhaustive]
pub struct AllocError {
    /// Bytes asked for.
    pub len: usize,
    /// Alignment asked for, in bytes.
    pub align: usize,
}

/// How memory of a foreign owner is given back, see [`Buf::from_owner`].
#[derive(Debug)]
#[non_exhaustive]
pub struct BufVtable {
    free: unsafe fn(owner: *mut (), ptr: NonNull<u8>, len: usize),
}

impl BufVtable {
    /// A table whose `free` is called once, with what [`Buf::from_owner`] was given, when the buffer is dropped, on
    /// whichever thread drops it.
    pub const fn new(free: unsafe fn(owner: *mut (), ptr: NonNull<u8>, len: usize)) -> Self {
        Self { free }
    }
}

/// Unique, mutable memory: a box, a static, an aligned allocation, a page of a cache, or what else an owner lends.
///
/// Four words, no type parameter, so a request can hold any of them. Moving it never copies the bytes, and the bytes
/// never move. It is zero-cost to send to a device and back; dropping it gives the memory back to its owner.
pub struct Buf {
    ptr: NonNull<u8>,
    len: usize,
    owner: *mut (),
    vtable: &'static BufVtable,
}

// SAFETY: a `Buf` is the only handle to its bytes (`from_owner` demands it), and `free` may run on any thread.
unsafe impl Send for Buf {}
// SAFETY: through `&Buf` the bytes can only be read.
unsafe impl Sync for Buf {}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Buf>() == 32);

static BOXED: BufVtable = BufVtable::new(free_boxed);
static ALIGNED: BufVtable = BufVtable::new(free_aligned);
static STATIC: BufVtable = BufVtable::new(free_nothing);

/// # Safety
/// `ptr` and `len` come from [`Buf::from_box`], once.
unsafe fn free_boxed(_: *mut (), ptr: NonNull<u8>, len: usize) {
    // SAFETY: pointer and length are those of the box that `from_box` took apart.
    drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(ptr.as_ptr(), len)) });
}

/// # Safety
/// `ptr` and `len` come from [`Buf::alloc`], with the alignment as the owner word, once.
unsafe fn free_aligned(align: *mut (), ptr: NonNull<u8>, len: usize) {
    // SAFETY: `alloc` made a valid layout of this length and alignment.
    let layout = unsafe { Layout::from_size_align_unchecked(len, align.addr()) };
    // SAFETY: allocated by `alloc` with this layout; `len` is not zero there.
    unsafe { alloc::alloc::dealloc(ptr.as_ptr(), layout) };
}

/// # Safety
/// None needed: statics are never freed.
unsafe fn free_nothing(_: *mut (), _: NonNull<u8>, _: usize) {}

impl Buf {
    /// A zeroed allocation of `len` bytes whose address is a multiple of `align` (a power of two).
    ///
    /// This is where memory for devices is made: at set-up, not per request.
    pub fn alloc(len: usize, align: usize) -> Result<Self, AllocError> {
        let refused = AllocError { len, align };
        let layout = Layout::from_size_align(len, align).map_err(|_| refused)?;
        if len == 0 {
            let ptr = NonNull::new(ptr::without_provenance_mut(align)).ok_or(refused)?;
            return Ok(Self { ptr, len, owner: ptr::null_mut(), vtable: &STATIC });
        }
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { alloc::alloc::alloc_zeroed(layout) };
        let ptr = NonNull::new(ptr).ok_or(refused)?;
        Ok(Self { ptr, len, owner: ptr::without_provenance_mut(align), vtable: &ALIGNED })
    }

    /// The memory of a box; dropped as a box again.
    pub fn from_box(bytes: Box<[u8]>) -> Self {
        let len = bytes.len();
        let ptr = NonNull::from(Box::leak(bytes)).cast();
        Self { ptr, len, owner: ptr::null_mut(), vtable: &BOXED }
    }

    /// Static memory, for kernels without a heap. Dropping the buffer loses it.
    pub fn from_static(bytes: &'static mut [u8]) -> Self {
        let len = bytes.len();
        Self { ptr: NonNull::from(bytes).cast(), len, owner: ptr::null_mut(), vtable: &STATIC }
    }

    /// The memory of a foreign owner: a page allocator, a DMA pool, a cache.
    ///
    /// # Safety
    /// `ptr` is valid for reads and writes of `len` initialised bytes, at most `isize::MAX`, and nobody else touches
    /// them until `vtable.free(owner, ptr, len)` has been called. That call may come on any thread and may be never.
    pub unsafe fn from_owner(
        ptr: NonNull<u8>,
        len: usize,
        owner: *mut (),
        vtable: &'static BufVtable,
    ) -> Self {
        Self { ptr, len, owner, vtable }
    }

    /// Makes the buffer shareable again without an allocation, if it was a [`SharedBuf`] before; else it comes back.
    pub fn into_shared(self) -> Result<SharedBuf, Self> {
        shared::from_buf(self)
    }

    /// Address and length for a device. Using the pointer is unsafe; having it is not.
    pub(crate) fn raw(&self) -> (NonNull<u8>, usize) {
        (self.ptr, self.len)
    }

    pub(super) fn owner_of(&self, vtable: &'static BufVtable) -> Option<*mut ()> {
        ptr::eq(self.vtable, vtable).then_some(self.owner)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        // SAFETY: called once, with what the owner was told at construction.
        unsafe { (self.vtable.free)(self.owner, self.ptr, self.len) };
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes, shared while `self` is borrowed.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` initialised bytes, and `self` is their only handle, borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Box<[u8]>> for Buf {
    fn from(bytes: Box<[u8]>) -> Self {
        Self::from_box(bytes)
    }
}

impl From<alloc::vec::Vec<u8>> for Buf {
    /// Shrinks the vector to its length first, which may move it once.
    fn from(bytes: alloc::vec::Vec<u8>) -> Self {
        Self::from_box(bytes.into_boxed_slice())
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf").field("ptr", &self.ptr).field("len", &self.len).finish_non_exhaustive()
    }
}
