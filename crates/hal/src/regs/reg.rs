//! A register as a typed constant.

use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

use super::Window;
use crate::{Clock, Instant, Wait, block_on, sleep_until};

/// How wide a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
    /// 32 bits.
    W32,
    /// 64 bits.
    W64,
}

impl Width {
    /// The width in bits.
    pub const fn bits(self) -> u32 {
        match self {
            Self::W32 => 32,
            Self::W64 => 64,
        }
    }
}

/// What a register holds: `u32`, `u64`, or a type of the driver's that wraps one of them ([`reg_value!`]).
///
/// Every bit pattern is a value: what a device answers is never an error here.
///
/// [`reg_value!`]: crate::reg_value
pub trait RegValue: Copy {
    /// The register's width.
    const WIDTH: Width;
    /// From the bits that were read; a 32-bit register's are the low half.
    fn from_bits64(bits: u64) -> Self;
    /// To the bits to be written; a 32-bit register's are the low half.
    fn into_bits64(self) -> u64;
}

impl RegValue for u32 {
    const WIDTH: Width = Width::W32;
    #[inline]
    fn from_bits64(bits: u64) -> Self {
        bits as u32
    }
    #[inline]
    fn into_bits64(self) -> u64 {
        self.into()
    }
}

impl RegValue for u64 {
    const WIDTH: Width = Width::W64;
    #[inline]
    fn from_bits64(bits: u64) -> Self {
        bits
    }
    #[inline]
    fn into_bits64(self) -> u64 {
        self
    }
}

/// Makes a type with `from_bits` and `into_bits` (as the crate `bitfield-struct` generates them) the value of a register.
///
/// ```
/// use dfly_hal::reg_value;
/// #[derive(Clone, Copy, PartialEq, Debug)]
/// struct Csts(u32);
/// impl Csts {
///     const fn from_bits(bits: u32) -> Self { Self(bits) }
///     const fn into_bits(self) -> u32 { self.0 }
///     fn rdy(self) -> bool { self.0 & 1 != 0 }
/// }
/// reg_value!(Csts: u32);
/// ```
#[macro_export]
macro_rules! reg_value {
    ($($name:ty: $bits:ty),+ $(,)?) => {$(
        impl $crate::regs::RegValue for $name {
            const WIDTH: $crate::regs::Width = <$bits as $crate::regs::RegValue>::WIDTH;
            #[inline]
            fn from_bits64(bits: u64) -> Self {
                Self::from_bits(<$bits as $crate::regs::RegValue>::from_bits64(bits))
            }
            #[inline]
            fn into_bits64(self) -> u64 {
                <$bits as $crate::regs::RegValue>::into_bits64(self.into_bits())
            }
        }
    )+};
}

mod sealed {
    pub trait Access {}
}

/// A register that is only read.
#[derive(Debug)]
pub enum ReadOnly {}
/// A register that is only written.
#[derive(Debug)]
pub enum WriteOnly {}
/// A register that is read and written.
#[derive(Debug)]
pub enum ReadWrite {}

/// The accesses that may read: [`ReadOnly`], [`ReadWrite`].
pub trait Readable: sealed::Access {}
/// The accesses that may write: [`WriteOnly`], [`ReadWrite`].
pub trait Writable: sealed::Access {}

impl sealed::Access for ReadOnly {}
impl sealed::Access for WriteOnly {}
impl sealed::Access for ReadWrite {}
impl Readable for ReadOnly {}
impl Readable for ReadWrite {}
impl Writable for WriteOnly {}
impl Writable for ReadWrite {}

/// A register: where it is, what it holds, how it may be used.
///
/// ```
/// use dfly_hal::regs::{ReadOnly, ReadWrite, Reg, Window, WriteOnly};
/// const VS: Reg<u32, ReadOnly> = Reg::at(0x08);
/// const CC: Reg<u32, ReadWrite> = Reg::at(0x14);
/// const DOORBELL: Reg<u32, WriteOnly> = Reg::at(0x1000);
///
/// fn start(window: &dyn Window) -> u32 {
///     CC.update(window, |cc| cc | 1);
///     DOORBELL.plus(8).write(window, 1);            // the second of an array of registers
///     VS.read(window)
/// }
/// ```
///
/// What a register does not allow does not compile:
///
/// ```compile_fail,E0277
/// # use dfly_hal::regs::{ReadOnly, Reg, Window};
/// # const VS: Reg<u32, ReadOnly> = Reg::at(0x08);
/// fn f(window: &dyn Window) { VS.write(window, 1); }
/// ```
/// ```compile_fail,E0277
/// # use dfly_hal::regs::{Reg, Window, WriteOnly};
/// # const DOORBELL: Reg<u32, WriteOnly> = Reg::at(0x1000);
/// fn f(window: &dyn Window) -> u32 { DOORBELL.read(window) }
/// ```
/// ```compile_fail,E0080
/// # use dfly_hal::regs::{Reg, ReadWrite};
/// const CROOKED: Reg<u64, ReadWrite> = Reg::at(0x14);
/// ```
pub struct Reg<T, A> {
    offset: usize,
    // `fn`: a register is `Send` and `Sync`, whatever it holds.
    _type: PhantomData<fn(T, A) -> T>,
}

impl<T: RegValue, A> Reg<T, A> {
    /// The register at `offset` bytes. For constants: a crooked offset is a compile error there.
    ///
    /// # Panics
    /// If `offset` is not a multiple of the register's width. What is computed at run time goes through
    /// [`plus`](Self::plus).
    pub const fn at(offset: usize) -> Self {
        assert!(
            offset.is_multiple_of(T::WIDTH.bits() as usize / 8),
            "a register lies at a multiple of its width"
        );
        Self { offset, _type: PhantomData }
    }

    /// The register `bytes` further on: one of an array, or one of a port's. Never panics; what lies outside the window
    /// answers as described at [`Window`].
    #[must_use]
    pub const fn plus(self, bytes: usize) -> Self {
        Self { offset: self.offset.saturating_add(bytes), _type: PhantomData }
    }

    /// The register's offset in bytes.
    pub const fn offset(self) -> usize {
        self.offset
    }
}

impl<T: RegValue, A> Reg<T, A> {
    /// Reads the register.
    #[inline]
    pub fn read<W: Window + ?Sized>(self, window: &W) -> T
    where
        A: Readable,
    {
        T::from_bits64(match T::WIDTH {
            Width::W32 => window.read32(self.offset).into(),
            Width::W64 => window.read64(self.offset),
        })
    }

    /// Writes the register.
    #[inline]
    pub fn write<W: Window + ?Sized>(self, window: &W, value: T)
    where
        A: Writable,
    {
        let bits = value.into_bits64();
        match T::WIDTH {
            Width::W32 => window.write32(self.offset, bits as u32),
            Width::W64 => window.write64(self.offset, bits),
        }
    }

    /// Reads the register, changes the value, writes it back. Not atomic: whoever shares the register locks.
    #[inline]
    pub fn update<W: Window + ?Sized>(self, window: &W, f: impl FnOnce(T) -> T)
    where
        A: Readable + Writable,
    {
        self.write(window, f(self.read(window)));
    }

    /// Reads the register until `done` says yes, and returns the value that convinced it. May block.
    ///
    /// All-ones is a value: `done` should accept it where a device may be unplugged, and the caller look for it, rather
    /// than wait out the deadline. The register is looked at once more after the deadline, so a device that was in time
    /// is believed even when the caller was late.
    ///
    /// ```
    /// # use dfly_hal::regs::{NotYet, Patience, ReadOnly, Reg, Window};
    /// # const CSTS: Reg<u32, ReadOnly> = Reg::at(0x1c);
    /// fn ready(window: &dyn Window, patience: Patience<'_>) -> Result<bool, NotYet<u32>> {
    ///     let csts = CSTS.poll_until(window, patience, |csts| csts & 1 != 0)?;
    ///     Ok(csts != u32::MAX)                      // gone is not ready
    /// }
    /// ```
    pub fn poll_until<W: Window + ?Sized>(
        self,
        window: &W,
        patience: Patience<'_>,
        mut done: impl FnMut(T) -> bool,
    ) -> Result<T, NotYet<T>>
    where
        A: Readable,
    {
        let Patience { clock, wait, deadline } = patience;
        let mut pause = Patience::FIRST_PAUSE;
        loop {
            let late = clock.now() >= deadline;
            let last = self.read(window);
            if done(last) {
                return Ok(last);
            }
            if late {
                return Err(NotYet { last });
            }
            let next = clock.now().saturating_add(pause).min(deadline);
            // How the pause ended does not matter: the register is looked at again.
            let _ = block_on(wait, sleep_until(clock, next), Some(next));
            pause = (pause * 2).min(Patience::LONGEST_PAUSE);
        }
    }
}

/// How long to wait for a register, by which clock, and by whom: see [`Reg::poll_until`].
pub struct Patience<'a> {
    /// Tells the time.
    pub clock: &'a dyn Clock,
    /// Blocks between two looks.
    pub wait: &'a mut dyn Wait,
    /// When to give up.
    pub deadline: Instant,
}

impl Patience<'_> {
    /// The pause after the first look; each further one is twice as long.
    pub const FIRST_PAUSE: Duration = Duration::from_micros(1);
    /// No pause is longer.
    pub const LONGEST_PAUSE: Duration = Duration::from_millis(1);
}

/// The register did not get there in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the register did not change in time; it was last {last:?}")]
pub struct NotYet<T> {
    /// What was read last, after the deadline.
    pub last: T,
}

impl<T, A> Clone for Reg<T, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, A> Copy for Reg<T, A> {}

impl<T, A> fmt::Debug for Reg<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reg({:#x})", self.offset)
    }
}
