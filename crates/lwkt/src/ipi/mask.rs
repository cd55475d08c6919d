//! Sets of CPUs.

use core::fmt;
use core::ops::{BitAnd, BitOr, Not, Sub};

use dfly_hal::CpuId;
use dfly_hal::sync::atomic::{AtomicUsize, Ordering};

/// How many CPUs a [`CpuMask`] has room for: DragonFly's `MAXCPU`.
pub const MAX_CPUS: usize = 256;

const WORD_BITS: usize = usize::BITS as usize;
const WORDS: usize = MAX_CPUS / WORD_BITS;

/// A set of CPUs (DragonFly's `cpumask_t`), of a fixed size: 32 bytes, `Copy`, any context.
///
/// ```
/// use dfly_hal::CpuId;
/// use dfly_lwkt::ipi::CpuMask;
/// let mask: CpuMask = [0, 1, 2, 3, 7].map(CpuId).into_iter().collect();
/// assert_eq!(mask.to_string(), "0-3,7");
/// assert_eq!((mask - CpuMask::of(CpuId(2))).to_string(), "0-1,3,7");
/// assert_eq!((mask & CpuMask::first(2)).iter().collect::<Vec<_>>(), [CpuId(0), CpuId(1)]);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CpuMask {
    words: [usize; WORDS],
}

/// Where a CPU's bit is; nowhere if there is no room for it.
const fn place(cpu: CpuId) -> Option<(usize, usize)> {
    let index = cpu.index();
    if index < MAX_CPUS { Some((index / WORD_BITS, 1 << (index % WORD_BITS))) } else { None }
}

impl CpuMask {
    /// No CPU.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// One CPU; none if its number is [`MAX_CPUS`] or above.
    pub fn of(cpu: CpuId) -> Self {
        let mut mask = Self::EMPTY;
        mask.insert(cpu);
        mask
    }

    /// The CPUs from 0 up to `count`, exclusive; of more than [`MAX_CPUS`] the first ones.
    pub fn first(count: u32) -> Self {
        (0..count.min(MAX_CPUS as u32)).map(CpuId).collect()
    }

    /// Adds a CPU, and says whether it is new. One that there is no room for is never added.
    pub fn insert(&mut self, cpu: CpuId) -> bool {
        let Some((word, bit)) = place(cpu) else { return false };
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Takes a CPU out, and says whether it was there.
    pub fn remove(&mut self, cpu: CpuId) -> bool {
        let there = self.contains(cpu);
        if let Some((word, bit)) = place(cpu) {
            self.words[word] &= !bit;
        }
        there
    }

    /// Whether a CPU is in the set.
    pub fn contains(&self, cpu: CpuId) -> bool {
        place(cpu).is_some_and(|(word, bit)| self.words[word] & bit != 0)
    }

    /// Whether no CPU is in the set.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// How many CPUs are in the set.
    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The CPUs, lowest first.
    pub fn iter(&self) -> Iter {
        Iter { left: *self }
    }

    /// The CPUs from `first` on, then those below it: a round that does not favour CPU 0.
    pub fn iter_from(&self, first: CpuId) -> impl Iterator<Item = CpuId> + use<> {
        let below = *self & Self::first(first.0);
        (*self - below).iter().chain(below.iter())
    }

    fn zip(self, other: Self, f: impl Fn(usize, usize) -> usize) -> Self {
        Self { words: core::array::from_fn(|i| f(self.words[i], other.words[i])) }
    }
}

/// The CPUs of a [`CpuMask`], lowest first.
#[derive(Clone, Debug)]
pub struct Iter {
    left: CpuMask,
}

impl Iterator for Iter {
    type Item = CpuId;

    fn next(&mut self) -> Option<CpuId> {
        let (at, word) = self.left.words.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        Some(CpuId((at * WORD_BITS) as u32 + bit))
    }
}

impl IntoIterator for CpuMask {
    type Item = CpuId;
    type IntoIter = Iter;
    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl FromIterator<CpuId> for CpuMask {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        let mut mask = Self::EMPTY;
        mask.extend(cpus);
        mask
    }
}

impl Extend<CpuId> for CpuMask {
    fn extend<I: IntoIterator<Item = CpuId>>(&mut self, cpus: I) {
        for cpu in cpus {
            self.insert(cpu);
        }
    }
}

impl BitOr for CpuMask {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }
}

impl BitAnd for CpuMask {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }
}

impl Sub for CpuMask {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }
}

impl Not for CpuMask {
    type Output = Self;
    fn not(self) -> Self {
        self.zip(self, |a, _| !a)
    }
}

/// As ranges: `0-3,7`. Nothing for the empty set.
impl fmt::Display for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|cpu| cpu.0 == last.0 + 1) {
                last = next;
            }
            write!(f, "{comma}{}", first.0)?;
            if last != first {
                write!(f, "-{}", last.0)?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuMask({self})")
    }
}

/// A [`CpuMask`] that CPUs change side by side. Each bit is exact; a [`load`](Self::load) of several words is not a
/// snapshot of one moment. Any context.
#[derive(Debug)]
pub struct AtomicCpuMask {
    words: [AtomicUsize; WORDS],
}

impl AtomicCpuMask {
    /// A set that holds `mask`.
    pub fn new(mask: CpuMask) -> Self {
        Self { words: mask.words.map(AtomicUsize::new) }
    }

    /// Adds a CPU, and says whether it is new.
    pub fn insert(&self, cpu: CpuId, order: Ordering) -> bool {
        place(cpu).is_some_and(|(word, bit)| self.words[word].fetch_or(bit, order) & bit == 0)
    }

    /// Takes a CPU out, and says whether it was there.
    pub fn remove(&self, cpu: CpuId, order: Ordering) -> bool {
        place(cpu).is_some_and(|(word, bit)| self.words[word].fetch_and(!bit, order) & bit != 0)
    }

    /// Whether a CPU is in the set.
    ///
    /// # Panics
    /// If `order` is no order for a load.
    pub fn contains(&self, cpu: CpuId, order: Ordering) -> bool {
        place(cpu).is_some_and(|(word, bit)| self.words[word].load(order) & bit != 0)
    }

    /// The set, word by word.
    ///
    /// # Panics
    /// If `order` is no order for a load.
    pub fn load(&self, order: Ordering) -> CpuMask {
        CpuMask { words: core::array::from_fn(|i| self.words[i].load(order)) }
    }
}

impl Default for AtomicCpuMask {
    fn default() -> Self {
        Self::new(CpuMask::EMPTY)
    }
}
