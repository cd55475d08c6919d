//! [`SharedBuf`]: counted memory, frozen while shared, that can be a [`Buf`] while unique.

use core::alloc::Layout;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use dfly_hal::sync::atomic::{AtomicUsize, Ordering, fence};

use super::owned::{AllocError, Buf, BufVtable};

/// A count above this is stuck there: the memory is leaked rather than freed early (forgotten clones can overflow any
/// count).
const STUCK: usize = usize::MAX / 2 + 1;
/// Where a stuck count is set to again and again, so that it drifts neither to zero nor to an overflow.
const STUCK_AT: usize = STUCK + STUCK / 2;

struct Header {
    handles: AtomicUsize,
    memory: Buf,
}

/// Counted memory: a page of a cache.
///
/// While there is one handle it can be written ([`Self::get_mut`]) or sent to a device as a [`Buf`]
/// ([`Self::try_into_buf`], and [`Buf::into_shared`] on return; no allocation either way). While there are more, for
/// example because a write-back holds a [`Frozen`], everybody only reads. Callable in every context.
pub struct SharedBuf {
    header: NonNull<Header>,
}

/// A read-only handle to a [`SharedBuf`]'s memory: what a write-back sends to the device while readers go on reading.
#[derive(Clone, Debug)]
pub struct Frozen(SharedBuf);

// SAFETY: the bytes are read-only while shared; the count is atomic; `Buf` is `Send` and `Sync`.
unsafe impl Send for SharedBuf {}
// SAFETY: as above.
unsafe impl Sync for SharedBuf {}

static SHARED: BufVtable = BufVtable::new(free_shared);

/// # Safety
/// `owner` is the header of a [`SharedBuf`] that [`SharedBuf::try_into_buf`] consumed.
unsafe fn free_shared(owner: *mut (), _: NonNull<u8>, _: usize) {
    if let Some(header) = NonNull::new(owner.cast()) {
        drop(SharedBuf { header });
    }
}

/// The way back from [`SharedBuf::try_into_buf`].
pub(super) fn from_buf(buf: Buf) -> Result<SharedBuf, Buf> {
    match buf.owner_of(&SHARED).and_then(|owner| NonNull::new(owner.cast())) {
        Some(header) => {
            // The handle moves from the buffer's owner word into the `SharedBuf`.
            core::mem::forget(buf);
            Ok(SharedBuf { header })
        }
        None => Err(buf),
    }
}

impl SharedBuf {
    /// Shares the memory of `memory`. Allocates the header (a few words) once, at set-up.
    pub fn new(memory: Buf) -> Result<Self, AllocError> {
        let layout = Layout::new::<Header>();
        // SAFETY: a header has a size.
        let raw = unsafe { alloc::alloc::alloc(layout) };
        let header: NonNull<Header> =
            NonNull::new(raw).ok_or(AllocError { len: layout.size(), align: layout.align() })?.cast();
        // SAFETY: freshly allocated with the layout of a header.
        unsafe { header.write(Header { handles: AtomicUsize::new(1), memory }) };
        Ok(Self { header })
    }

    /// A zeroed page: [`Buf::alloc`], shared.
    pub fn alloc(len: usize, align: usize) -> Result<Self, AllocError> {
        Self::new(Buf::alloc(len, align)?)
    }

    fn header(&self) -> &Header {
        // SAFETY: the header lives as long as a handle does, and is never borrowed mutably.
        unsafe { self.header.as_ref() }
    }

    /// Whether this is the only handle. With `&mut self` the answer stays true.
    fn is_unique(&mut self) -> bool {
        // Acquire pairs with the release decrement of the handle that went last: its reads are over.
        self.header().handles.load(Ordering::Acquire) == 1
    }

    /// The bytes for writing, if this is the only handle.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        if !self.is_unique() {
            return None;
        }
        let (ptr, len) = self.header().memory.raw();
        // SAFETY: valid bytes, and the only handle to them is borrowed mutably.
        Some(unsafe { core::slice::from_raw_parts_mut(ptr.as_ptr(), len) })
    }

    /// Makes it a unique buffer that a read can fill, if this is the only handle; else it comes back. Allocates nothing.
    pub fn try_into_buf(mut self) -> Result<Buf, Self> {
        if !self.is_unique() {
            return Err(self);
        }
        let (ptr, len) = self.header().memory.raw();
        let owner = self.header.as_ptr().cast();
        core::mem::forget(self);
        // SAFETY: the bytes belong to the only handle, which now is the buffer's owner word.
        Ok(unsafe { Buf::from_owner(ptr, len, owner, &SHARED) })
    }

    /// A read-only handle for a write. While it lives, [`Self::get_mut`] refuses.
    pub fn freeze(&self) -> Frozen {
        Frozen(self.clone())
    }

    /// Whether both handles are of the same memory.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        self.header == other.header
    }
}

impl Clone for SharedBuf {
    fn clone(&self) -> Self {
        let handles = &self.header().handles;
        // Relaxed: a new handle is made from a living one, which orders it.
        if handles.fetch_add(1, Ordering::Relaxed) >= STUCK {
            handles.store(STUCK_AT, Ordering::Relaxed);
        }
        Self { header: self.header }
    }
}

impl Drop for SharedBuf {
    fn drop(&mut self) {
        let handles = &self.header().handles;
        // Release: what was read or written through this handle happens before the memory is freed or written.
        let before = handles.fetch_sub(1, Ordering::Release);
        if before >= STUCK {
            handles.store(STUCK_AT, Ordering::Relaxed);
        } else if before == 1 {
            fence(Ordering::Acquire);
            // SAFETY: the last handle is gone, so nobody else can reach the header.
            unsafe { self.header.drop_in_place() };
            // SAFETY: allocated in `new` with this layout.
            unsafe { alloc::alloc::dealloc(self.header.as_ptr().cast(), Layout::new::<Header>()) };
        }
    }
}

impl Deref for SharedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.header().memory
    }
}

impl fmt::Debug for SharedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuf").field("memory", &self.header().memory).finish_non_exhaustive()
    }
}

impl Frozen {
    pub(crate) fn raw(&self) -> (NonNull<u8>, usize) {
        self.0.header().memory.raw()
    }

    /// The shared handle behind it.
    pub fn into_shared(self) -> SharedBuf {
        self.0
    }
}

impl From<SharedBuf> for Frozen {
    fn from(page: SharedBuf) -> Self {
        Self(page)
    }
}

impl Deref for Frozen {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As after so many clones that were forgotten.
    #[test]
    fn a_count_that_would_overflow_sticks_and_frees_nothing() {
        let mut page = SharedBuf::alloc(8, 1).unwrap();
        page.header().handles.store(STUCK - 1, Ordering::Relaxed);
        let (last, beyond) = (page.clone(), page.clone());
        for handle in [last, beyond, page.clone()] {
            drop(handle);
            assert_eq!(page.header().handles.load(Ordering::Relaxed), STUCK_AT);
            assert_eq!((page.get_mut().is_some(), &*page), (false, &[0; 8][..]));
        }
        // Freed after all, so that Miri does not call it a leak.
        page.header().handles.store(1, Ordering::Relaxed);
    }
}
