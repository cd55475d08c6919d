//! The fake machine's memory as its devices see it.
//!
//! Everything a device can reach is a `Block`: a raw allocation, because a box in a table would take its bytes back from
//! whoever was given a pointer to them. A `Live` entry owns its block; `regions` says where devices see pieces of it.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;

use crate::dma::shared::{self, WORD};
use crate::dma::{
    CoherentMem, Constraints, DevAddr, Direction, DmaError, Mapping, Segment, Unmappable, segments,
};

/// What a mapping holds that the device has not written.
pub const FRESH: u8 = 0xa5;
/// What was freed or unmapped is filled with this.
pub const POISON: u8 = 0xdd;

const PAGE: u64 = 4096;
const KEPT_FAULTS: usize = 1024;
/// Freed blocks that are watched for late writes.
const WATCHED: usize = 64;

/// Where the pages of a buffer appear to devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Each page somewhere else, if the device takes that many segments; in one piece otherwise.
    #[default]
    Scattered,
    /// In one piece.
    Contiguous,
}

/// A mistake of a device, a device model or a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A device read what is not mapped, or not all of it.
    #[error("a device read {len} bytes at {addr:#x}, which are not mapped")]
    ReadUnmapped {
        /// First byte.
        addr: DevAddr,
        /// Number of bytes.
        len: usize,
    },
    /// A device wrote what is not mapped, or not all of it.
    #[error("a device wrote {len} bytes at {addr:#x}, which are not mapped")]
    WriteUnmapped {
        /// First byte.
        addr: DevAddr,
        /// Number of bytes.
        len: usize,
    },
    /// A device read a mapping that it may only write.
    #[error("a device read {addr:#x}, which is mapped for writing only")]
    ReadDenied {
        /// First byte.
        addr: DevAddr,
    },
    /// A device wrote a mapping that it may only read.
    #[error("a device wrote {addr:#x}, which is mapped for reading only")]
    WriteDenied {
        /// First byte.
        addr: DevAddr,
    },
    /// Coherent memory was freed that is not allocated, or not as described.
    #[error("memory was freed that is not allocated: cookie {cookie}")]
    BadFree {
        /// The description's cookie.
        cookie: u64,
    },
    /// A mapping was unmapped or synchronised that does not exist, or not as described.
    #[error("a mapping was used that does not exist: cookie {cookie}")]
    BadMapping {
        /// The description's cookie.
        cookie: u64,
    },
    /// A range was synchronised that is not inside the mapping.
    #[error("range {start}..{end} of a mapping of {len} bytes was synchronised")]
    BadRange {
        /// Start of the range.
        start: usize,
        /// End of the range.
        end: usize,
        /// Length of the mapping.
        len: usize,
    },
    /// Somebody wrote to memory after it was freed or unmapped.
    #[error("memory that was at {addr:#x} was written after it was given back")]
    LateWrite {
        /// Where devices saw its first byte.
        addr: DevAddr,
    },
}

/// What is allocated or mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leaks {
    /// Device address and length of each piece of coherent memory.
    pub coherent: Vec<(DevAddr, usize)>,
    /// First device address and length of each mapping.
    pub mappings: Vec<(DevAddr, usize)>,
}

impl Leaks {
    /// Whether nothing is allocated or mapped.
    pub fn is_empty(&self) -> bool {
        self.coherent.is_empty() && self.mappings.is_empty()
    }
}

/// A raw allocation.
struct Block {
    at: NonNull<u8>,
    len: usize,
    /// In whole words, so that the last bytes are accessed as the others are.
    layout: Layout,
}

// SAFETY: a block is a piece of memory that it owns; `Memory` is behind a lock.
unsafe impl Send for Block {}

impl Block {
    fn new(len: usize, align: usize) -> Result<Self, DmaError> {
        let whole = len.checked_next_multiple_of(WORD).ok_or(DmaError::Exhausted)?;
        let layout = Layout::from_size_align(whole, align.max(WORD)).map_err(|_| DmaError::Exhausted)?;
        if len == 0 {
            return Err(DmaError::Empty);
        }
        // SAFETY: the length is not 0.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(DmaError::Exhausted)?;
        Ok(Self { at, len, layout })
    }

    fn len(&self) -> usize {
        self.len
    }

    /// Nobody else uses the block at this moment: it is new, or was given back.
    fn fill(&self, byte: u8) {
        // SAFETY: the block is valid for writes of its length.
        unsafe { self.at.write_bytes(byte, self.len()) };
    }

    fn holds_only(&self, byte: u8) -> bool {
        // SAFETY: the block is initialised, and was given back, so nobody uses it.
        let bytes = unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.len()) };
        bytes.chunks(256).all(|piece| *piece == [byte; 256][..piece.len()])
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.at.as_ptr(), self.layout) };
    }
}

/// A piece of a block as devices see it.
struct Region {
    len: u64,
    at: NonNull<u8>,
    reads: bool,
    writes: bool,
}

// SAFETY: points into a block that lives as long as the region is in the table.
unsafe impl Send for Region {}

#[derive(PartialEq)]
enum Use {
    Coherent,
    Mapped { cpu: usize, direction: Direction },
}

struct Live {
    what: Use,
    block: Block,
    /// Where its regions begin, in order.
    regions: Vec<u64>,
}

impl Live {
    fn addr(&self) -> DevAddr {
        DevAddr(self.regions.first().copied().unwrap_or(0))
    }
}

pub(super) struct Memory {
    placement: Placement,
    budget: usize,
    used: usize,
    /// By cookie.
    live: BTreeMap<u64, Live>,
    last_cookie: u64,
    /// By device address.
    regions: BTreeMap<u64, Region>,
    /// Where the next address is looked for, for devices that reach 4 GiB only and for the others.
    cursors: [u64; 2],
    freed: VecDeque<(DevAddr, Block)>,
    faults: Vec<Fault>,
}

/// The first address for devices that reach 4 GiB only.
const LOW: u64 = 1 << 20;
/// The first address for the others: a driver that keeps 32 bits of it is found out.
const HIGH: u64 = 1 << 32;

impl Memory {
    pub(super) fn new(placement: Placement, budget: usize) -> Self {
        Self {
            placement,
            budget,
            used: 0,
            live: BTreeMap::new(),
            last_cookie: 0,
            regions: BTreeMap::new(),
            cursors: [LOW, HIGH],
            freed: VecDeque::new(),
            faults: Vec::new(),
        }
    }

    pub(super) fn alloc_coherent(&mut self, len: usize, c: &Constraints) -> Result<CoherentMem, DmaError> {
        c.check()?;
        self.charge(len)?;
        // What is aligned to its own length, rounded up, crosses no boundary of that length or above.
        let align = match c.boundary {
            0 => c.align.into(),
            boundary if len as u64 <= boundary => u64::from(c.align).max((len as u64).next_power_of_two()),
            _ => return Err(Unmappable::TooManySegments(1).into()),
        };
        let block = Block::new(len, (c.align as usize).max(8))?;
        let addr = self.place(len as u64, align, c.addr_mask)?;
        let region = Region { len: len as u64, at: block.at, reads: true, writes: true };
        self.regions.insert(addr, region);
        let cpu = block.at;
        let cookie = self.keep(Live { what: Use::Coherent, block, regions: Vec::from([addr]) });
        Ok(CoherentMem { cpu, device: DevAddr(addr), len, cookie })
    }

    pub(super) fn free_coherent(&mut self, mem: &CoherentMem) {
        let is_it = |live: &Live| {
            matches!(live.what, Use::Coherent)
                && live.block.at == mem.cpu
                && live.block.len() == mem.len
                && live.addr() == mem.device
        };
        if self.live.get(&mem.cookie).is_some_and(is_it) {
            self.retire(mem.cookie);
        } else {
            self.fault(Fault::BadFree { cookie: mem.cookie });
        }
    }

    /// # Safety
    /// As for `Dma::map`.
    pub(super) unsafe fn map(
        &mut self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        c: &Constraints,
    ) -> Result<(Mapping, Vec<Segment>), DmaError> {
        c.check()?;
        self.charge(len)?;
        let block = Block::new(len, PAGE as usize)?;
        block.fill(FRESH);
        if direction.device_reads() {
            // SAFETY: the caller lends the bytes, and the block is as long and new.
            unsafe { block.at.copy_from_nonoverlapping(cpu, len) };
        }
        // As behind an IOMMU, the place within a page stays.
        let offset = cpu.addr().get() as u64 % PAGE;
        let scattered = match self.placement {
            Placement::Scattered => self.show(&block, offset, PAGE, direction, c),
            Placement::Contiguous => Err(DmaError::Exhausted),
        };
        let (regions, list) = match scattered {
            Ok(done) => done,
            Err(_) => self.show(&block, offset, u64::MAX, direction, c)?,
        };
        let what = Use::Mapped { cpu: cpu.addr().get(), direction };
        let cookie = self.keep(Live { what, block, regions });
        Ok((Mapping { cpu, len, direction, cookie, adapter: 0 }, list))
    }

    /// Lets devices see a block that begins `offset` bytes into a page, in pieces that end at multiples of `piece`.
    fn show(
        &mut self,
        block: &Block,
        offset: u64,
        piece: u64,
        direction: Direction,
        c: &Constraints,
    ) -> Result<(Vec<u64>, Vec<Segment>), DmaError> {
        let mut runs: Vec<(DevAddr, u64)> = Vec::new();
        let mut shown = 0;
        let result = loop {
            let left = block.len() as u64 - shown;
            if left == 0 {
                break segments(runs.iter().copied(), c);
            }
            let inside = if shown == 0 { offset } else { 0 };
            let len = left.min(piece - inside);
            let page = match self.place(inside + len, PAGE, c.addr_mask) {
                Ok(page) => page,
                Err(error) => break Err(error),
            };
            // SAFETY: inside the block.
            let at = unsafe { block.at.add(shown as usize) };
            let region =
                Region { len, at, reads: direction.device_reads(), writes: direction.device_writes() };
            self.regions.insert(page + inside, region);
            runs.push((DevAddr(page + inside), len));
            shown += len;
        };
        match result.map(Vec::from_iter) {
            Ok(list) => Ok((runs.iter().map(|&(addr, _)| addr.0).collect(), list)),
            Err(error) => {
                for (addr, _) in runs {
                    self.regions.remove(&addr.0);
                }
                Err(error)
            }
        }
    }

    /// Ends a mapping that no device was told of.
    pub(super) fn forget_mapping(&mut self, mapping: &Mapping) {
        self.retire(mapping.cookie);
    }

    /// # Safety
    /// As for `Dma::unmap`.
    pub(super) unsafe fn unmap(&mut self, mapping: &Mapping) {
        // SAFETY: the caller gives the bytes back to the CPU.
        if unsafe { self.copy(mapping, 0..mapping.len, Side::Cpu) } {
            self.retire(mapping.cookie);
        }
    }

    /// # Safety
    /// As for `Dma::sync_for_device`.
    pub(super) unsafe fn sync_for_device(&mut self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: passed on.
        unsafe { self.copy(mapping, range, Side::Device) };
    }

    /// # Safety
    /// As for `Dma::sync_for_cpu`.
    pub(super) unsafe fn sync_for_cpu(&mut self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: passed on.
        unsafe { self.copy(mapping, range, Side::Cpu) };
    }

    /// Copies `range` to one side, if that side reads what the other writes. `false` if there is no such mapping.
    ///
    /// # Safety
    /// Neither side touches `range` meanwhile.
    unsafe fn copy(&mut self, mapping: &Mapping, range: Range<usize>, to: Side) -> bool {
        let Mapping { cpu, len, direction, cookie, .. } = *mapping;
        let what = Use::Mapped { cpu: cpu.addr().get(), direction };
        let live = self.live.get(&cookie).filter(|live| live.what == what && live.block.len() == len);
        let Some(live) = live else {
            self.fault(Fault::BadMapping { cookie });
            return false;
        };
        if range.start > range.end || range.end > len {
            self.fault(Fault::BadRange { start: range.start, end: range.end, len });
            return true;
        }
        // SAFETY: inside the mapped bytes.
        let cpu = unsafe { cpu.add(range.start) };
        // SAFETY: the block is as long as the mapping.
        let copy = unsafe { live.block.at.add(range.start) };
        match to {
            Side::Cpu if direction.device_writes() => {
                // SAFETY: both are valid for the range, and the CPU's side for writes, because the device writes.
                unsafe { cpu.copy_from_nonoverlapping(copy, range.len()) };
            }
            Side::Device if direction.device_reads() => {
                // SAFETY: both are valid for the range.
                unsafe { copy.copy_from_nonoverlapping(cpu, range.len()) };
            }
            _ => {}
        }
        true
    }

    pub(super) fn device_read(&mut self, addr: DevAddr, to: &mut [u8]) -> Result<(), Fault> {
        match self.find(addr, to.len()) {
            None => Err(self.fault(Fault::ReadUnmapped { addr, len: to.len() })),
            Some((_, region)) if !region.reads => Err(self.fault(Fault::ReadDenied { addr })),
            Some((at, _)) => {
                // SAFETY: inside a living block; the CPU's side is atomic (`Coherent`) or copies under our lock.
                unsafe { shared::load(at, to) };
                Ok(())
            }
        }
    }

    pub(super) fn device_write(&mut self, addr: DevAddr, from: &[u8]) -> Result<(), Fault> {
        match self.find(addr, from.len()) {
            None => Err(self.fault(Fault::WriteUnmapped { addr, len: from.len() })),
            Some((_, region)) if !region.writes => Err(self.fault(Fault::WriteDenied { addr })),
            Some((at, _)) => {
                // SAFETY: as in `device_read`.
                unsafe { shared::store(at, from) };
                Ok(())
            }
        }
    }

    /// The memory behind device addresses that lie inside one region.
    fn find(&self, addr: DevAddr, len: usize) -> Option<(NonNull<u8>, &Region)> {
        let (&start, region) = self.regions.range(..=addr.0).next_back()?;
        let inside = addr.0 - start;
        if inside.checked_add(len as u64)? > region.len {
            return None;
        }
        // SAFETY: inside the region's piece of a living block.
        Some((unsafe { region.at.add(inside as usize) }, region))
    }

    /// Free device addresses with a free page before and after them.
    fn place(&mut self, len: u64, align: u64, mask: u64) -> Result<u64, DmaError> {
        let (cursor, base) = match &mut self.cursors {
            [low, _] if mask >> 33 == 0 => (low, LOW),
            [_, high] => (high, HIGH),
        };
        let align = align.max(PAGE);
        let mut at = *cursor;
        let mut again = false;
        loop {
            let fits = at.checked_next_multiple_of(align).and_then(|at| Some((at, at.checked_add(len)?)));
            let Some((start, end)) = fits.filter(|&(_, end)| end - 1 <= mask) else {
                if again {
                    return Err(DmaError::Exhausted);
                }
                again = true;
                at = base;
                continue;
            };
            // What lies before the end of our last page, guard included, must end a page before our start.
            match self.regions.range(..end + PAGE).next_back() {
                Some((&taken, region)) if taken + region.len + PAGE > start => at = taken + region.len + PAGE,
                _ => {
                    *cursor = end + PAGE;
                    return Ok(start);
                }
            }
        }
    }

    fn charge(&mut self, len: usize) -> Result<(), DmaError> {
        match self.used.checked_add(len) {
            Some(used) if used <= self.budget => Ok(()),
            _ => Err(DmaError::Exhausted),
        }
    }

    fn keep(&mut self, live: Live) -> u64 {
        self.used += live.block.len();
        self.last_cookie += 1;
        self.live.insert(self.last_cookie, live);
        self.last_cookie
    }

    /// Takes memory back: devices see it no more, and late writes are watched for.
    fn retire(&mut self, cookie: u64) {
        let Some(live) = self.live.remove(&cookie) else { return };
        for addr in &live.regions {
            self.regions.remove(addr);
        }
        self.used -= live.block.len();
        live.block.fill(POISON);
        self.freed.push_back((live.addr(), live.block));
        if self.freed.len() > WATCHED
            && let Some((addr, block)) = self.freed.pop_front()
            && !block.holds_only(POISON)
        {
            self.fault(Fault::LateWrite { addr });
        }
    }

    fn fault(&mut self, fault: Fault) -> Fault {
        if self.faults.len() < KEPT_FAULTS {
            self.faults.push(fault);
        }
        fault
    }

    pub(super) fn faults(&mut self) -> Vec<Fault> {
        for (addr, block) in core::mem::take(&mut self.freed) {
            if block.holds_only(POISON) {
                self.freed.push_back((addr, block));
            } else {
                self.fault(Fault::LateWrite { addr });
            }
        }
        self.faults.clone()
    }

    pub(super) fn leaks(&self) -> Leaks {
        let mut leaks = Leaks::default();
        for live in self.live.values() {
            let entry = (live.addr(), live.block.len());
            match live.what {
                Use::Coherent => leaks.coherent.push(entry),
                Use::Mapped { .. } => leaks.mappings.push(entry),
            }
        }
        leaks
    }
}

#[derive(Clone, Copy)]
enum Side {
    Cpu,
    Device,
}
