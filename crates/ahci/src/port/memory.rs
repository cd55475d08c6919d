//! A port's memory: the command list, a table for each slot and one of the port's own, received FISes, and some sectors for
//! the port's own commands.

use dfly_hal::dma::{Coherent, Constraints, Dma, DmaError, Pod};
use zerocopy::{FromZeros, IntoBytes};

use crate::prdt::Table;
use crate::spec::{
    CommandHeader, H2d, HeaderFlags, Prd, RECEIVED_BYTES, RangeEntry, ReceivedAt, TABLE_ACMD_AT,
    TABLE_PRDT_AT, Taskfile,
};

/// The slot that the port's own commands use, while no other command is issued.
pub(crate) const OWN_SLOT: u8 = 0;
/// Bytes of a sector of [`PortMemory::sector`].
pub(crate) const SECTOR: usize = 512;
/// Sectors for the port's own commands.
pub(crate) const SECTORS: usize = 8;
/// Behind them, one for the ranges of a TRIM.
const TRIM_SECTOR: usize = SECTORS;
/// A table is a multiple of these many entries: 128 bytes.
const TABLE_UNIT: usize = 8;
/// Entries before the PRDT.
const HEAD: usize = TABLE_PRDT_AT / size_of::<Prd>();

/// How transfers are cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The longest transfer.
    pub(crate) max_bytes: u32,
    /// The most segments of a request's memory.
    pub(crate) max_segments: u32,
}

impl Shape {
    /// Memory shows itself to devices in pages, or in longer pieces.
    pub(crate) const PAGE: u32 = 4096;

    pub(crate) fn new(max_bytes: u32) -> Self {
        let max_bytes = max_bytes.clamp(Self::PAGE, crate::Config::LARGEST_TRANSFER_BYTES);
        Self { max_bytes, max_segments: max_bytes / Self::PAGE + 1 }
    }

    /// Entries of a PRDT. A segment has whole pages, and at most a part of one at either end.
    const fn entries(self) -> usize {
        (self.max_bytes / Self::PAGE + 2 * self.max_segments) as usize
    }

    /// Entries from one table to the next.
    const fn stride(self) -> usize {
        (HEAD + self.entries()).next_multiple_of(TABLE_UNIT)
    }
}

pub(crate) struct PortMemory<H: Dma> {
    list: Coherent<CommandHeader, H>,
    received: Coherent<[u8; RECEIVED_BYTES], H>,
    /// All tables, in units of an entry.
    tables: Coherent<Prd, H>,
    sectors: Coherent<[u8; SECTOR], H>,
    shape: Shape,
    slots: u8,
}

/// The PRDT of one slot.
pub(crate) struct Area<'a, H: Dma> {
    tables: &'a mut Coherent<Prd, H>,
    first: usize,
    entries: usize,
}

impl<H: Dma> Table for Area<'_, H> {
    fn capacity(&self) -> usize {
        self.entries
    }
    fn set(&mut self, index: usize, entry: Prd) {
        // The builder stays below the capacity.
        let _ = self.tables.set(self.first + index, entry);
    }
}

/// A command of the port's own.
pub(crate) struct Own {
    pub(crate) taskfile: Taskfile,
    pub(crate) flags: HeaderFlags,
    pub(crate) cdb: Option<[u8; 16]>,
    /// Bytes of the sectors that it reads or writes.
    pub(crate) len: u32,
}

impl<H: Dma + Clone> PortMemory<H> {
    pub(crate) fn new(hal: &H, slots: u8, shape: Shape, addr_mask: u64) -> Result<Self, DmaError> {
        let aligned = |align| Constraints { addr_mask, align, ..Constraints::ANY };
        let tables = (usize::from(slots) + 1) * shape.stride();
        Ok(Self {
            list: Coherent::alloc(hal.clone(), 32, &aligned(1024))?,
            received: Coherent::alloc(hal.clone(), 1, &aligned(256))?,
            tables: Coherent::alloc(hal.clone(), tables, &aligned(128))?,
            sectors: Coherent::alloc(hal.clone(), SECTORS + 1, &aligned(SECTOR as u32))?,
            shape,
            slots,
        })
    }

    /// The longest transfer.
    pub(crate) const fn max_bytes(&self) -> u32 {
        self.shape.max_bytes
    }

    /// Where the command list and the received FISes are.
    pub(crate) fn bases(&self) -> (u64, u64) {
        (self.list.device_addr(0).map_or(0, |at| at.0), self.received.device_addr(0).map_or(0, |at| at.0))
    }

    /// What was received last at `at`.
    pub(crate) fn received<T: Pod>(&self, at: ReceivedAt) -> T {
        self.received.hal().rmb();
        self.received.get_part(0, at as usize).unwrap_or_else(T::new_zeroed)
    }

    /// Forgets what was received there.
    pub(crate) fn forget_received(&mut self) {
        let _ = self.received.set(0, [0; RECEIVED_BYTES]);
    }

    /// Bytes that the command in `slot` transferred; for commands that are not queued.
    pub(crate) fn transferred(&self, slot: u8) -> u32 {
        self.list.hal().rmb();
        self.list.get(slot.into()).map_or(0, |header| header.prdbc.get())
    }

    fn first(&self, slot: u8) -> usize {
        usize::from(slot) * self.shape.stride()
    }

    /// The PRDT of `slot`.
    pub(crate) fn prdt(&mut self, slot: u8) -> Area<'_, H> {
        let (first, entries) = (self.first(slot) + HEAD, self.shape.entries());
        Area { tables: &mut self.tables, first, entries }
    }

    /// Writes the head of `slot`'s table, and returns its header.
    pub(crate) fn command(
        &mut self,
        slot: u8,
        taskfile: &Taskfile,
        cdb: Option<[u8; 16]>,
        flags: HeaderFlags,
        entries: u16,
    ) -> CommandHeader {
        let first = self.first(slot);
        let fis = H2d::command(taskfile);
        // A frame is a line and a word; what follows it in its room means nothing.
        let mut lines = [Prd::new_zeroed(); 2];
        if let Some(room) = lines.as_mut_bytes().get_mut(..size_of::<H2d>()) {
            room.copy_from_slice(fis.as_bytes());
        }
        for (i, line) in lines.into_iter().enumerate() {
            let _ = self.tables.set(first + i, line);
        }
        if let Some(cdb) = cdb {
            let mut line = Prd::new_zeroed();
            line.as_mut_bytes().copy_from_slice(&cdb);
            let _ = self.tables.set(first + TABLE_ACMD_AT / size_of::<Prd>(), line);
        }
        let table = self.tables.device_addr(first).map_or(0, |at| at.0);
        let flags = flags.with_cfl(H2d::WORDS).with_a(cdb.is_some());
        CommandHeader {
            flags: flags.into_bits().into(),
            prdtl: entries.into(),
            prdbc: 0.into(),
            ctba: (table as u32).into(),
            ctbau: ((table >> 32) as u32).into(),
            reserved: [0.into(); 4],
        }
    }

    /// Writes a header: the slot may be issued.
    pub(crate) fn set_header(&mut self, slot: u8, header: CommandHeader) {
        let _ = self.list.set(slot.into(), header);
    }

    /// A command of the port's own, in [`OWN_SLOT`], with the table that is nobody else's.
    pub(crate) fn set_own(&mut self, own: &Own) {
        let at = self.sectors.device_addr(0).map_or(0, |at| at.0);
        let entries = u16::from(own.len != 0);
        let first = self.first(self.slots) + HEAD;
        if own.len != 0 {
            let _ = self.tables.set(first, Prd::new(at, own.len));
        }
        let header = self.command(self.slots, &own.taskfile, own.cdb, own.flags, entries);
        self.set_header(OWN_SLOT, header);
    }

    /// Writes the ranges of a TRIM: `blocks` blocks at `lba`, as far as they fit. Returns the PRDT's entry.
    pub(crate) fn set_ranges(&mut self, mut lba: u64, mut blocks: u64) -> Prd {
        let mut sector = [0; SECTOR];
        for entry in sector.as_chunks_mut::<8>().0 {
            let now = blocks.min(RangeEntry::MAX_BLOCKS);
            *entry = RangeEntry::new(lba, now as u16).0.to_bytes();
            (lba, blocks) = (lba + now, blocks - now);
        }
        let _ = self.sectors.set(TRIM_SECTOR, sector);
        Prd::new(self.sectors.device_addr(TRIM_SECTOR).map_or(0, |at| at.0), SECTOR as u32)
    }

    /// The beginning of the sectors.
    pub(crate) fn answer<T: Pod>(&self) -> T {
        self.sectors.hal().rmb();
        self.sectors.get_part(0, 0).unwrap_or_else(T::new_zeroed)
    }

    /// Sector `index` of the port's own.
    pub(crate) fn sector(&self, index: usize) -> [u8; SECTOR] {
        self.sectors.hal().rmb();
        self.sectors.get(index).unwrap_or([0; SECTOR])
    }

    /// Fills sector `index`.
    pub(crate) fn set_sector(&mut self, index: usize, bytes: [u8; SECTOR]) {
        let _ = self.sectors.set(index, bytes);
    }

    /// Zeroes the sectors: what a device does not write is not what was there before.
    pub(crate) fn clear_sectors(&mut self) {
        (0..SECTORS).for_each(|index| self.set_sector(index, [0; SECTOR]));
    }

    pub(crate) fn wmb(&self) {
        self.list.hal().wmb();
    }
}
