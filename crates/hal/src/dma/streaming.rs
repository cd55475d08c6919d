//! A buffer while it is lent to a device.

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Constraints, Direction, Dma, DmaError, Mapping, SegmentSink};

/// Memory that can be lent to a device that reads it.
///
/// # Safety
/// A device, and the CPU on its behalf, reads the range long after this call.
///
/// # Implementation safety
/// The bytes stay where they are, initialised and unwritten, until the value is used otherwise or dropped; moving the
/// value does not count as use. `range` says the same at every call.
pub unsafe trait DmaBuffer: Send + 'static {
    /// The bytes.
    fn range(&mut self) -> NonNull<[u8]>;
}

/// Memory that can be lent to a device that writes it, too.
///
/// # Safety
/// A device, and the CPU on its behalf, writes the range.
///
/// # Implementation safety
/// The value is the only way to the bytes, and any bytes may be written there.
pub unsafe trait DmaBufferMut: DmaBuffer {}

// SAFETY: the heap block stays when the box moves, and nobody uses the box meanwhile.
unsafe impl DmaBuffer for Box<[u8]> {
    fn range(&mut self) -> NonNull<[u8]> {
        NonNull::from(&mut **self)
    }
}
// SAFETY: a box owns its bytes.
unsafe impl DmaBufferMut for Box<[u8]> {}

// SAFETY: the heap block stays when the vector moves, and nobody uses the vector meanwhile.
unsafe impl DmaBuffer for Vec<u8> {
    fn range(&mut self) -> NonNull<[u8]> {
        NonNull::from(self.as_mut_slice())
    }
}
// SAFETY: a vector owns its bytes.
unsafe impl DmaBufferMut for Vec<u8> {}

// SAFETY: the bytes stay for ever, and nobody uses the reference meanwhile.
unsafe impl DmaBuffer for &'static mut [u8] {
    fn range(&mut self) -> NonNull<[u8]> {
        NonNull::from(&mut **self)
    }
}
// SAFETY: the reference is exclusive.
unsafe impl DmaBufferMut for &'static mut [u8] {}

// SAFETY: the bytes stay for ever, and nobody writes them.
unsafe impl DmaBuffer for &'static [u8] {
    fn range(&mut self) -> NonNull<[u8]> {
        NonNull::from(&**self)
    }
}

/// The device reads what the CPU wrote.
#[derive(Debug)]
pub enum ToDevice {}
/// The device writes what the CPU will read.
#[derive(Debug)]
pub enum FromDevice {}
/// The device reads and writes.
#[derive(Debug)]
pub enum Bidirectional {}

mod sealed {
    pub trait Direction {}
    impl Direction for super::ToDevice {}
    impl Direction for super::FromDevice {}
    impl Direction for super::Bidirectional {}
}

/// A direction as a type, and the buffers `B` that it takes: a device that writes needs a [`DmaBufferMut`].
pub trait StreamingDirection<B>: sealed::Direction {
    /// The direction as a value.
    const DIRECTION: Direction;
}
impl<B: DmaBuffer> StreamingDirection<B> for ToDevice {
    const DIRECTION: Direction = Direction::ToDevice;
}
impl<B: DmaBufferMut> StreamingDirection<B> for FromDevice {
    const DIRECTION: Direction = Direction::FromDevice;
}
impl<B: DmaBufferMut> StreamingDirection<B> for Bidirectional {
    const DIRECTION: Direction = Direction::Bidirectional;
}

/// The directions in which the device reads: [`ToDevice`], [`Bidirectional`].
pub trait DeviceReads: sealed::Direction {}
impl DeviceReads for ToDevice {}
impl DeviceReads for Bidirectional {}
/// The directions in which the device writes: [`FromDevice`], [`Bidirectional`].
pub trait DeviceWrites: sealed::Direction {}
impl DeviceWrites for FromDevice {}
impl DeviceWrites for Bidirectional {}

/// A buffer that is lent to a device. It owns the buffer, so nobody else touches it, and gives it back at the end.
///
/// **If it is dropped, the buffer and the mapping leak**, because the device may still write to them; only
/// [`unmap`](Self::unmap), with the promise that the device is done, gives them back.
///
/// Thread context; never blocks.
///
/// ```
/// # #[cfg(feature = "std")] {
/// use core::ops::ControlFlow;
/// use dfly_hal::dma::{Constraints, FromDevice, Streaming};
/// use dfly_hal::host::HostDma;
/// let mut list = Vec::new();
/// let buf = vec![0_u8; 512].into_boxed_slice();
/// let lent = Streaming::<FromDevice, _, _>::map(HostDma::new(), buf, &Constraints::ANY, &mut |segment| {
///     list.push(segment);
///     ControlFlow::Continue(())
/// })?;
/// /* tell the device about `list`, wait until it has answered */
/// // SAFETY: the device has answered.
/// let buf = unsafe { lent.unmap() };
/// assert_eq!((buf.len(), list.len()), (512, 1));
/// # }
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
///
/// A device that writes does not get memory that is shared or constant:
///
/// ```compile_fail,E0599
/// # use core::ops::ControlFlow;
/// # use dfly_hal::dma::*;
/// fn f(hal: &dyn Dma) {
///     let _ = Streaming::<FromDevice, &'static [u8], _>::map(hal, b"constant", &Constraints::ANY, &mut |_| ControlFlow::Continue(()));
/// }
/// ```
#[must_use = "dropping it leaks the buffer and the mapping; `unmap` gives them back"]
pub struct Streaming<X, B, D> {
    // `MaybeUninit` also says: moving this does not claim the bytes for a box or reference inside.
    buf: MaybeUninit<B>,
    mapping: Mapping,
    hal: D,
    _direction: PhantomData<fn(X) -> X>,
}

/// A buffer that could not be lent, and why.
#[derive(thiserror::Error)]
#[error("{error}")]
pub struct MapFailed<B> {
    /// Why.
    #[source]
    pub error: DmaError,
    /// The buffer, untouched.
    pub buf: B,
}

impl<B> fmt::Debug for MapFailed<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapFailed").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<X: StreamingDirection<B>, B: DmaBuffer, D: Dma> Streaming<X, B, D> {
    /// Lends `buf` to the devices behind `hal`, and tells `sink` where they see it.
    pub fn map(
        hal: D,
        buf: B,
        constraints: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Self, MapFailed<B>> {
        let mut buf = MaybeUninit::new(buf);
        // SAFETY: written the line above.
        let bytes = unsafe { buf.assume_init_mut() }.range();
        // SAFETY: `DmaBuffer` (and `DmaBufferMut`, where the device writes: the bound on `X`) promises that the bytes are
        // valid and nobody else's until the buffer is used again, which is after `unmap`, or never.
        let mapping = unsafe { hal.map(bytes.cast(), bytes.len(), X::DIRECTION, constraints, sink) };
        match mapping {
            Ok(mapping) => Ok(Self { buf, mapping, hal, _direction: PhantomData }),
            Err(error) => {
                // SAFETY: written above, and not taken out since.
                let buf = unsafe { buf.assume_init() };
                Err(MapFailed { error, buf })
            }
        }
    }
}

impl<X, B, D: Dma> Streaming<X, B, D> {
    /// The length of the buffer in bytes.
    pub fn len(&self) -> usize {
        self.mapping.len
    }

    /// Always `false`: nothing of length zero is lent.
    pub fn is_empty(&self) -> bool {
        self.mapping.len == 0
    }

    /// Ends the mapping and gives the buffer back.
    ///
    /// # Safety
    /// The device is done with the buffer for good.
    pub unsafe fn unmap(self) -> B {
        let Self { buf, mapping, hal, .. } = self;
        // SAFETY: `mapping` came from `hal`; the caller speaks for the device.
        unsafe { hal.unmap(mapping) };
        // SAFETY: written in `map`, and `self` is gone, so it is taken out once.
        unsafe { buf.assume_init() }
    }

    /// What the device wrote to `range` so far, or `None` if the buffer has no such range.
    ///
    /// # Safety
    /// The device does not write to `range` while the result lives.
    pub unsafe fn peek(&self, range: Range<usize>) -> Option<&[u8]>
    where
        X: DeviceWrites,
    {
        let at = self.at(&range)?;
        // SAFETY: the range lies inside the mapping, which came from `hal`; the caller speaks for the device.
        unsafe { self.hal.sync_for_cpu(&self.mapping, range.clone()) };
        // SAFETY: inside the buffer, initialised, and nobody writes while `self` is borrowed: `poke` takes `&mut self`.
        Some(unsafe { core::slice::from_raw_parts(at.as_ptr(), range.len()) })
    }

    /// Changes `range`, and lets the device see it. `None`, and `f` is not called, if the buffer has no such range.
    ///
    /// # Safety
    /// The device does not touch `range` until this returns.
    pub unsafe fn poke<R>(&mut self, range: Range<usize>, f: impl FnOnce(&mut [u8]) -> R) -> Option<R>
    where
        X: DeviceReads,
        B: DmaBufferMut,
    {
        let at = self.at(&range)?;
        if self.mapping.direction.device_writes() {
            // SAFETY: as in `peek`. Else bytes that `f` leaves alone would undo what the device wrote.
            unsafe { self.hal.sync_for_cpu(&self.mapping, range.clone()) };
        }
        // SAFETY: inside the buffer, initialised, writable (`DmaBufferMut`), and `&mut self` is the only way to it.
        let result = f(unsafe { core::slice::from_raw_parts_mut(at.as_ptr(), range.len()) });
        // SAFETY: as in `peek`.
        unsafe { self.hal.sync_for_device(&self.mapping, range) };
        Some(result)
    }

    fn at(&self, range: &Range<usize>) -> Option<NonNull<u8>> {
        if range.start > range.end || range.end > self.mapping.len {
            return None;
        }
        // SAFETY: inside the buffer, which is one allocation.
        Some(unsafe { self.mapping.cpu.add(range.start) })
    }
}

impl<X, B, D> fmt::Debug for Streaming<X, B, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streaming").field("mapping", &self.mapping).finish_non_exhaustive()
    }
}
