//! Memory that the CPU and a device use at the same time: rings, queues, tables.

use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::shared::{self, WORD};
use super::{CoherentMem, Constraints, DevAddr, Dma, DmaError};

/// What coherent memory may hold: any bytes are a value (a device wrote them), and every byte is initialised (a device
/// reads them). Derive `zerocopy`'s traits to get it.
pub trait Pod: FromBytes + IntoBytes + Immutable + Copy + Send + Sync + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + Copy + Send + Sync + 'static> Pod for T {}

/// An index, or a part of an element, beyond the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index {index} is out of range: {len} elements")]
pub struct OutOfRange {
    /// The index asked for.
    pub index: usize,
    /// The number of elements.
    pub len: usize,
}

/// An array in memory that the CPU and a device use at the same time. Freed when it is dropped.
///
/// An element is copied in and out, and no reference to the memory exists. Each access really happens, in aligned words of
/// four bytes, each of which is whole; so the size of an element is a multiple of four, which is checked when the program
/// is compiled. What must be whole beyond a word is arranged with the device: read the phase bit with
/// [`get_part`](Self::get_part), then [`Dma::rmb`], then the rest; write the entry, then [`Dma::wmb`], then the doorbell.
///
/// Callable from every context, except allocating and freeing. Never blocks.
///
/// **Stop the device before dropping it.** To drop the memory is safe, because what a device is told to do is answered
/// for where its registers were mapped ([`MmioWindow::new`](crate::regs::MmioWindow::new)). If the device does not stop,
/// leak the memory with [`core::mem::forget`].
///
/// ```
/// # #[cfg(feature = "std")] {
/// use dfly_hal::dma::{Coherent, Constraints, Dma};
/// use dfly_hal::host::HostDma;
/// let mut ring = Coherent::<u64, _>::alloc(HostDma::new(), 64, &Constraints { align: 4096, ..Constraints::ANY })?;
/// ring.set(3, 0xfeed)?;
/// ring.hal().wmb();
/// assert_eq!((ring.get(3), ring.get(64)), (Some(0xfeed), None));
/// assert_eq!(ring.device_addr(3), ring.device_addr(0).and_then(|base| base.checked_add(24)));
/// # }
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Coherent<T: Pod, D: Dma> {
    mem: ManuallyDrop<CoherentMem>,
    count: usize,
    hal: D,
    _elements: PhantomData<T>,
}

impl<T: Pod, D: Dma> Coherent<T, D> {
    /// `count` zeroed elements.
    pub fn alloc(hal: D, count: usize, constraints: &Constraints) -> Result<Self, DmaError> {
        const { assert!(size_of::<T>().is_multiple_of(WORD), "an element is whole words") };
        let len = count.checked_mul(size_of::<T>()).ok_or(DmaError::Exhausted)?;
        let mem = hal.alloc_coherent(len, constraints)?;
        debug_assert!(
            mem.len == len && mem.cpu.addr().get().is_multiple_of(8),
            "the Dma implementation broke a promise of alloc_coherent: {mem:?}"
        );
        Ok(Self { mem: ManuallyDrop::new(mem), count, hal, _elements: PhantomData })
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Always `false`: no memory is allocated for nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where the memory comes from; also to order accesses by [`Dma::wmb`] and [`Dma::rmb`].
    pub fn hal(&self) -> &D {
        &self.hal
    }

    /// Where the device sees element `index`.
    pub fn device_addr(&self, index: usize) -> Option<DevAddr> {
        let at = self.offset_of::<T>(index, 0).ok()?;
        self.mem.device.checked_add(at as u64)
    }

    /// A copy of element `index`.
    #[inline]
    pub fn get(&self, index: usize) -> Option<T> {
        self.get_part(index, 0)
    }

    /// A copy of what lies `offset` bytes into element `index`.
    #[inline]
    pub fn get_part<U: Pod>(&self, index: usize, offset: usize) -> Option<U> {
        let at = self.at::<U>(index, offset).ok()?;
        let mut value = U::new_zeroed();
        // SAFETY: `U` lies inside the memory, which begins at a word, is whole words, and is valid until we free it; all of
        // our accesses are of this kind, and a device's are outside the program.
        unsafe { shared::load(at, value.as_mut_bytes()) };
        Some(value)
    }

    /// Writes element `index`.
    #[inline]
    pub fn set(&mut self, index: usize, value: T) -> Result<(), OutOfRange> {
        self.set_part::<0, T>(index, value)
    }

    /// Writes what lies `OFFSET` bytes into element `index`, and nothing else of it. Part and offset are whole words of
    /// the element, which is checked when the program is compiled.
    #[inline]
    pub fn set_part<const OFFSET: usize, U: Pod>(
        &mut self,
        index: usize,
        value: U,
    ) -> Result<(), OutOfRange> {
        const {
            assert!(OFFSET.is_multiple_of(WORD), "a part begins at a word");
            assert!(size_of::<U>().is_multiple_of(WORD), "a part is whole words");
            assert!(
                size_of::<U>() <= size_of::<T>() && OFFSET <= size_of::<T>() - size_of::<U>(),
                "a part of an element"
            );
        }
        let at = self.at::<U>(index, OFFSET)?;
        // SAFETY: as in `get_part`; coherent memory is writable.
        unsafe { shared::store(at, value.as_bytes()) };
        Ok(())
    }

    /// Where `U` lies that begins `offset` bytes into element `index`, if it lies inside that element.
    #[inline]
    fn offset_of<U>(&self, index: usize, offset: usize) -> Result<usize, OutOfRange> {
        let inside = offset.checked_add(size_of::<U>()).is_some_and(|end| end <= size_of::<T>());
        if index < self.count && inside {
            // No overflow: inside the allocation.
            Ok(index * size_of::<T>() + offset)
        } else {
            Err(OutOfRange { index, len: self.count })
        }
    }

    #[inline]
    fn at<U>(&self, index: usize, offset: usize) -> Result<NonNull<u8>, OutOfRange> {
        let at = self.offset_of::<U>(index, offset)?;
        // SAFETY: inside the memory, which is one allocation.
        Ok(unsafe { self.mem.cpu.add(at) })
    }
}

impl<T: Pod, D: Dma> Drop for Coherent<T, D> {
    fn drop(&mut self) {
        // SAFETY: `mem` is not used after this.
        let mem = unsafe { ManuallyDrop::take(&mut self.mem) };
        // SAFETY: `mem` is as `alloc_coherent` of `hal` returned it; the CPU has no pointer to it, and the driver has
        // stopped the device (see the type's documentation).
        unsafe { self.hal.free_coherent(mem) };
    }
}

impl<T: Pod, D: Dma> fmt::Debug for Coherent<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherent")
            .field("mem", &*self.mem)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
