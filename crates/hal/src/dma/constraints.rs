//! What a device can take, and cutting memory to it.

use core::fmt;

use super::DevAddr;

/// What a device demands of the memory it is pointed at.
///
/// Start from [`Constraints::ANY`] and tighten what the device's specification names. The NVMe form, a PRP list of up to
/// 512 entries:
///
/// ```
/// use dfly_hal::dma::Constraints;
/// let prp = Constraints { align: 4, inner_align: 4096, max_segment: 4096, max_segments: 512, ..Constraints::ANY };
/// assert!(prp.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Constraints {
    /// The address bits that the device drives: `u32::MAX` for one that reaches 4 GiB. One less than a power of two.
    pub addr_mask: u64,
    /// Each segment starts at a multiple of this: a power of two.
    pub align: u32,
    /// Each segment but the first starts at a multiple of this, and each but the last ends at one: a power of two. A PRP
    /// list wants its page size here, a scatter list 1.
    pub inner_align: u32,
    /// No segment crosses a multiple of this: a power of two, or 0 for a device that does not care.
    pub boundary: u64,
    /// The longest segment in bytes.
    pub max_segment: u32,
    /// The most segments in a mapping.
    pub max_segments: u16,
    /// Whether the device sees the CPU's caches (as on every PC). If not, the implementation cleans and invalidates.
    pub coherent: bool,
}

impl Constraints {
    /// What a device without demands takes.
    pub const ANY: Self = Self {
        addr_mask: u64::MAX,
        align: 1,
        inner_align: 1,
        boundary: 0,
        max_segment: u32::MAX,
        max_segments: u16::MAX,
        coherent: true,
    };

    /// Whether the constraints can be satisfied at all.
    pub const fn check(&self) -> Result<(), BadConstraints> {
        if !self.addr_mask.wrapping_add(1).is_power_of_two() && self.addr_mask != u64::MAX {
            return Err(BadConstraints::AddrMask(self.addr_mask));
        }
        if !self.align.is_power_of_two() {
            return Err(BadConstraints::Align(self.align));
        }
        if !self.inner_align.is_power_of_two() {
            return Err(BadConstraints::InnerAlign(self.inner_align));
        }
        let unit = self.unit();
        if self.boundary != 0 && (!self.boundary.is_power_of_two() || self.boundary < unit) {
            return Err(BadConstraints::Boundary(self.boundary));
        }
        if (self.max_segment as u64) < unit {
            return Err(BadConstraints::MaxSegment(self.max_segment));
        }
        if self.max_segments == 0 {
            return Err(BadConstraints::MaxSegments);
        }
        Ok(())
    }

    /// Where contiguous memory may be cut: at multiples of this.
    const fn unit(&self) -> u64 {
        if self.align > self.inner_align { self.align as u64 } else { self.inner_align as u64 }
    }
}

impl Default for Constraints {
    fn default() -> Self {
        Self::ANY
    }
}

/// Constraints that nothing can satisfy, by the field that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadConstraints {
    /// Not one less than a power of two.
    #[error("address mask {0:#x} has gaps")]
    AddrMask(u64),
    /// Not a power of two.
    #[error("alignment {0} is not a power of two")]
    Align(u32),
    /// Not a power of two.
    #[error("inner alignment {0} is not a power of two")]
    InnerAlign(u32),
    /// Not a power of two, or smaller than the alignments.
    #[error("boundary {0:#x} is not a power of two, or is smaller than the alignments")]
    Boundary(u64),
    /// Smaller than the alignments.
    #[error("segments of at most {0} bytes cannot keep the alignments")]
    MaxSegment(u32),
    /// Zero.
    #[error("a mapping of no segments")]
    MaxSegments,
}

/// Why memory does not suit a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unmappable {
    /// The address has bits that the device does not drive, or the range ends beyond the address space.
    #[error("address {0:#x} is out of the device's reach")]
    Unreachable(DevAddr),
    /// A segment would start here against `align`.
    #[error("address {0:#x} is not aligned")]
    Misaligned(DevAddr),
    /// A segment would start or end here, inside the mapping, against `inner_align`.
    #[error("address {0:#x} inside the mapping is not aligned")]
    InnerMisaligned(DevAddr),
    /// More segments than the device takes.
    #[error("more than {0} segments")]
    TooManySegments(u16),
    /// The range is longer than this implementation can lend at once.
    #[error("the range is longer than {0} bytes")]
    TooLong(usize),
}

/// A piece of device address space: one entry of a scatter list or PRP list.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Where it starts.
    pub addr: DevAddr,
    /// Length in bytes, never 0.
    pub len: u32,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x}", self.addr, self.len)
    }
}

/// Cuts memory to a device's constraints, for the author of a HAL.
///
/// `runs` is the memory in order, as (address, length in bytes): for example the pages that a page-table walk finds.
/// Neighbours that touch are joined first, then cut as rarely as the constraints allow. The whole list is checked
/// before anything is returned, so the iterator that is returned cannot fail. Empty runs are skipped.
///
/// Pure: neither allocates nor blocks. Takes time linear in runs plus segments.
///
/// ```
/// use dfly_hal::dma::{Constraints, DevAddr, Segment, segments};
/// let pages = [(DevAddr(0x1800), 0x800), (DevAddr(0x2000), 0x1000), (DevAddr(0x9000), 0x1000)];
/// let c = Constraints { max_segments: 2, inner_align: 4096, ..Constraints::ANY };
/// let list: Vec<_> = segments(pages, &c)?.collect();
/// let expected = [(0x1800, 0x1800), (0x9000, 0x1000)];
/// assert_eq!(list, expected.map(|(addr, len)| Segment { addr: DevAddr(addr), len }));
/// # Ok::<(), dfly_hal::dma::DmaError>(())
/// ```
pub fn segments<I>(runs: I, constraints: &Constraints) -> Result<Segments<I::IntoIter>, super::DmaError>
where
    I: IntoIterator<Item = (DevAddr, u64)>,
    I::IntoIter: Clone,
{
    constraints.check()?;
    let cutter = Cutter { runs: runs.into_iter(), rest: None, constraints: *constraints, cut: None };
    let mut count = 0_u16;
    let mut trial = cutter.clone();
    while let Some(segment) = trial.next_segment() {
        segment?;
        if count == constraints.max_segments {
            return Err(Unmappable::TooManySegments(count).into());
        }
        count += 1;
    }
    if count == 0 {
        return Err(super::DmaError::Empty);
    }
    Ok(Segments { cutter, left: count })
}

/// The segments of a piece of memory: what [`segments`] returns.
#[derive(Clone, Debug)]
pub struct Segments<I> {
    cutter: Cutter<I>,
    left: u16,
}

impl<I: Iterator<Item = (DevAddr, u64)>> Iterator for Segments<I> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        // A clone of an iterator may yield other runs than the original did: then the list just ends, at the latest
        // where its length said.
        self.left = self.left.checked_sub(1)?;
        self.cutter.next_segment()?.ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left.into()))
    }
}

#[derive(Clone, Debug)]
struct Cutter<I> {
    runs: I,
    /// What of the memory has been looked at and not yet been cut off.
    rest: Option<(DevAddr, u64)>,
    constraints: Constraints,
    /// Where the last segment ended.
    cut: Option<DevAddr>,
}

impl<I: Iterator<Item = (DevAddr, u64)>> Cutter<I> {
    fn next_segment(&mut self) -> Option<Result<Segment, Unmappable>> {
        let (start, mut len) = match self.rest.take() {
            Some(rest) => rest,
            None => self.next_run()?,
        };
        let c = self.constraints;
        // As far as one segment may reach: neither over the boundary nor beyond the longest.
        let limit = match c.boundary {
            0 => u64::from(c.max_segment),
            boundary => u64::from(c.max_segment).min(boundary - (start.0 & (boundary - 1))),
        };
        // Join what touches, until the segment is full. What does not touch waits.
        let mut gap = None;
        while len <= limit {
            match self.next_run() {
                Some((next, more)) if start.checked_add(len) == Some(next) => match len.checked_add(more) {
                    Some(sum) => len = sum,
                    None => return Some(Err(Unmappable::Unreachable(next))),
                },
                other => {
                    gap = other;
                    break;
                }
            }
        }
        let end = start.0.checked_add(len - 1);
        if end.is_none_or(|last| last & !c.addr_mask != 0) {
            return Some(Err(Unmappable::Unreachable(start)));
        }
        if start.0 & u64::from(c.align - 1) != 0 {
            return Some(Err(Unmappable::Misaligned(start)));
        }
        let inner = u64::from(c.inner_align - 1);
        if self.cut.is_some() && start.0 & inner != 0 {
            return Some(Err(Unmappable::InnerMisaligned(start)));
        }
        let take = if len <= limit {
            len
        } else {
            // Cut where the next segment may start. `check` made room for one unit, but not for one that starts crooked.
            let stop = (start.0 + limit) & !(c.unit() - 1);
            match stop.checked_sub(start.0) {
                Some(take) if take > 0 => take,
                _ => return Some(Err(Unmappable::InnerMisaligned(start))),
            }
        };
        let stop = DevAddr(start.0.wrapping_add(take));
        self.rest = if take < len { Some((stop, len - take)) } else { gap };
        if self.rest.is_some() && stop.0 & inner != 0 {
            return Some(Err(Unmappable::InnerMisaligned(stop)));
        }
        self.cut = Some(stop);
        match u32::try_from(take) {
            Ok(len) => Some(Ok(Segment { addr: start, len })),
            Err(_) => None,
        }
    }

    fn next_run(&mut self) -> Option<(DevAddr, u64)> {
        self.runs.by_ref().find(|&(_, len)| len > 0)
    }
}
