//! A window that tells what passes through it.

use core::fmt;

use super::{Width, Window};

/// Whether a register was read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The register was read; the value is what the device answered.
    Read,
    /// The register was written.
    Write,
}

/// One register access. Prints as `read32 0x1c = 0x1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Access {
    /// Read or write.
    pub kind: Kind,
    /// 32 or 64 bits.
    pub width: Width,
    /// Offset of the register, in bytes.
    pub offset: usize,
    /// The value read or written, zero-extended.
    pub value: u64,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Read => "read",
            Kind::Write => "write",
        };
        write!(f, "{kind}{} {:#x} = {:#x}", self.width.bits(), self.offset, self.value)
    }
}

/// A window over a window that reports each access: a read after it was answered, a write before it goes out. A 64-bit
/// access is reported as one, whatever the inner window makes of it.
///
/// ```
/// use dfly_hal::regs::{Traced, Window};
/// # use dfly_hal::sync::atomic::{AtomicU32, Ordering};
/// # struct Model(AtomicU32);
/// # impl Window for Model {
/// #     fn read32(&self, _: usize) -> u32 { self.0.load(Ordering::Relaxed) }
/// #     fn write32(&self, _: usize, v: u32) { self.0.store(v, Ordering::Relaxed) }
/// # }
/// # let model = Model(AtomicU32::new(1));
/// let log = dfly_hal::sync::Lock::new(Vec::new());
/// let window = Traced::new(model, |access| log.lock().push(access.to_string()));
/// window.read32(0x1c);
/// window.write64(0x30, 0x1000);
/// assert_eq!(*log.lock(), ["read32 0x1c = 0x1", "write64 0x30 = 0x1000"]);
/// ```
pub struct Traced<W, F> {
    inner: W,
    report: F,
}

impl<W: Window, F: Fn(Access) + Send + Sync> Traced<W, F> {
    /// Reports what passes to `inner`. `report` is called in the context of the access, interrupts included.
    pub fn new(inner: W, report: F) -> Self {
        Self { inner, report }
    }

    /// The window inside.
    pub fn into_inner(self) -> W {
        self.inner
    }

    fn report(&self, kind: Kind, width: Width, offset: usize, value: u64) {
        (self.report)(Access { kind, width, offset, value });
    }
}

impl<W: Window, F: Fn(Access) + Send + Sync> Window for Traced<W, F> {
    fn read32(&self, offset: usize) -> u32 {
        let value = self.inner.read32(offset);
        self.report(Kind::Read, Width::W32, offset, value.into());
        value
    }

    fn write32(&self, offset: usize, value: u32) {
        self.report(Kind::Write, Width::W32, offset, value.into());
        self.inner.write32(offset, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        let value = self.inner.read64(offset);
        self.report(Kind::Read, Width::W64, offset, value);
        value
    }

    fn write64(&self, offset: usize, value: u64) {
        self.report(Kind::Write, Width::W64, offset, value);
        self.inner.write64(offset, value);
    }
}

impl<W: fmt::Debug, F> fmt::Debug for Traced<W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Traced").field(&self.inner).finish()
    }
}
