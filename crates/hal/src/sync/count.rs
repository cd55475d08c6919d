//! Counting what is done to the facade's atomics, for tests that assert the cost of a path (feature `count`).
//!
//! The counters belong to the thread, so tests do not disturb each other. Counted is what goes through
//! [`sync::atomic`](super::atomic): a clone of an [`Arc`](super::Arc) is not, and neither is the look-up of the
//! preemption hooks.
//!
//! ```
//! use dfly_hal::sync::{Lock, count};
//! let lock = Lock::new(1);
//! let (_, cost) = count::measure(|| *lock.lock() += 1);
//! assert_eq!((cost.rmws, cost.loads, cost.stores), (1, 0, 1));
//! ```

use core::cell::Cell;
use core::ops::Sub;

/// How often each kind of atomic operation was done by a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Loads.
    pub loads: u64,
    /// Stores.
    pub stores: u64,
    /// Read-modify-writes, failed exchanges included: they cost the same.
    pub rmws: u64,
    /// Fences.
    pub fences: u64,
}

impl Sub for Counts {
    type Output = Self;
    fn sub(self, earlier: Self) -> Self {
        Self {
            loads: self.loads.wrapping_sub(earlier.loads),
            stores: self.stores.wrapping_sub(earlier.stores),
            rmws: self.rmws.wrapping_sub(earlier.rmws),
            fences: self.fences.wrapping_sub(earlier.fences),
        }
    }
}

std::thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { loads: 0, stores: 0, rmws: 0, fences: 0 }) };
}

/// What the calling thread has done since it began.
pub fn snapshot() -> Counts {
    COUNTS.try_with(Cell::get).unwrap_or_default()
}

/// What `f` costs on the calling thread, beside its result.
pub fn measure<R>(f: impl FnOnce() -> R) -> (R, Counts) {
    let before = snapshot();
    let result = f();
    (result, snapshot() - before)
}

fn count(step: impl FnOnce(&mut Counts)) {
    // A thread that is ending counts no more.
    let _ = COUNTS.try_with(|cell| {
        let mut counts = cell.get();
        step(&mut counts);
        cell.set(counts);
    });
}

/// The counting atomics: `core`'s, with a count.
pub(super) mod atomic {
    use super::count;
    use core::sync::atomic as real;
    use core::sync::atomic::Ordering;

    /// `core::sync::atomic::fence`, counted.
    #[inline]
    pub fn fence(order: Ordering) {
        count(|c| c.fences += 1);
        real::fence(order);
    }

    macro_rules! counted {
        ($(#[$attr:meta])* $name:ident $(<$t:ident>)?, $value:ty) => {
            $(#[$attr])*
            #[doc = concat!("`core::sync::atomic::", stringify!($name), "`, counted.")]
            #[repr(transparent)]
            pub struct $name $(<$t>)? (real::$name $(<$t>)?);

            $(#[$attr])*
            impl $(<$t>)? Default for $name $(<$t>)? {
                fn default() -> Self {
                    Self(Default::default())
                }
            }

            $(#[$attr])*
            impl $(<$t>)? core::fmt::Debug for $name $(<$t>)? {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    self.0.fmt(f)
                }
            }

            $(#[$attr])*
            impl $(<$t>)? $name $(<$t>)? {
                /// An atomic that holds `value`.
                pub const fn new(value: $value) -> Self {
                    Self(real::$name::new(value))
                }

                /// The value, not counted: `&mut self` proves that nobody else looks.
                pub fn get_mut(&mut self) -> &mut $value {
                    self.0.get_mut()
                }

                /// The value, not counted.
                pub const fn into_inner(self) -> $value {
                    self.0.into_inner()
                }

                /// One load.
                #[inline]
                pub fn load(&self, order: Ordering) -> $value {
                    count(|c| c.loads += 1);
                    self.0.load(order)
                }

                /// One store.
                #[inline]
                pub fn store(&self, value: $value, order: Ordering) {
                    count(|c| c.stores += 1);
                    self.0.store(value, order);
                }

                /// One read-modify-write.
                #[inline]
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    count(|c| c.rmws += 1);
                    self.0.swap(value, order)
                }

                /// One read-modify-write, whether it succeeds or not.
                #[inline]
                pub fn compare_exchange(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    count(|c| c.rmws += 1);
                    self.0.compare_exchange(current, new, success, failure)
                }

                /// One read-modify-write, whether it succeeds or not.
                #[inline]
                pub fn compare_exchange_weak(
                    &self,
                    current: $value,
                    new: $value,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$value, $value> {
                    count(|c| c.rmws += 1);
                    self.0.compare_exchange_weak(current, new, success, failure)
                }

                /// One load, and one read-modify-write for each attempt.
                pub fn fetch_update(
                    &self,
                    set: Ordering,
                    fetch: Ordering,
                    mut f: impl FnMut($value) -> Option<$value>,
                ) -> Result<$value, $value> {
                    let mut seen = self.load(fetch);
                    while let Some(next) = f(seen) {
                        match self.compare_exchange_weak(seen, next, set, fetch) {
                            Ok(old) => return Ok(old),
                            Err(now) => seen = now,
                        }
                    }
                    Err(seen)
                }
            }
        };
    }

    macro_rules! counted_rmw {
        ($(#[$attr:meta])* $name:ident, $value:ty, $($op:ident)*) => {
            $(#[$attr])*
            impl $name {
                $(
                    /// One read-modify-write.
                    #[inline]
                    pub fn $op(&self, value: $value, order: Ordering) -> $value {
                        count(|c| c.rmws += 1);
                        self.0.$op(value, order)
                    }
                )*
            }

            $(#[$attr])*
            impl From<$value> for $name {
                fn from(value: $value) -> Self {
                    Self::new(value)
                }
            }
        };
    }

    macro_rules! counted_int {
        ($(#[$attr:meta])* $name:ident, $value:ty) => {
            counted!($(#[$attr])* $name, $value);
            counted_rmw!($(#[$attr])* $name, $value,
                fetch_add fetch_sub fetch_and fetch_nand fetch_or fetch_xor fetch_max fetch_min);
        };
    }

    counted_int!(AtomicU8, u8);
    counted_int!(AtomicU16, u16);
    counted_int!(AtomicU32, u32);
    counted_int!(
        #[cfg(target_has_atomic = "64")]
        AtomicU64,
        u64
    );
    counted_int!(AtomicUsize, usize);
    counted!(AtomicBool, bool);
    counted_rmw!(AtomicBool, bool, fetch_and fetch_nand fetch_or fetch_xor);
    counted!(AtomicPtr<T>, *mut T);
}
