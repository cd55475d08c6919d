//! Space: what the freemap says about each big-block, against what is in use there.

use alloc::vec::Vec;
use core::ops::Range;

use dfly_hal::Wait;

use super::{Depth, Finding, Kind, Log, ObjectRef};
use crate::error::{Error, Structure};
use crate::freemap::layer1_table;
use crate::media::Media;
use crate::ondisk::freemap::{LAYER1_PER_VOLUME, LAYER2_ENTRIES, Layer1, Layer2};
use crate::ondisk::volume::VolumeHeader;
use crate::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, Offset, Zone};
use zerocopy::FromBytes;

/// What something in use is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    Node,
    Record,
    /// File data: deduplication lets records share it.
    Data,
}

/// A place in use. Ordered by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Extent {
    /// With its zone: [`Self::long`] orders.
    at: Offset,
    obj_id: i64,
    len: u32,
    pfs: u16,
    what: Use,
}

impl Extent {
    pub(super) fn new(at: Offset, len: u32, object: ObjectRef, what: Use) -> Self {
        Self { at, obj_id: object.obj_id, len, pfs: object.pfs, what }
    }

    fn long(&self) -> u64 {
        self.at.long()
    }

    /// Its number of bytes, as the freemap counts them.
    fn bytes(&self) -> u64 {
        u64::from(self.len).next_multiple_of(16)
    }

    fn finding(&self, kind: Kind) -> Finding {
        let finding = Finding::new(kind, self.at);
        match self.what {
            Use::Node => finding,
            _ => finding.of(ObjectRef { pfs: self.pfs, obj_id: self.obj_id }),
        }
    }
}

/// The places in use within a window of addresses. What does not fit is left to the next window.
pub(super) struct Window {
    found: Vec<Extent>,
    capacity: usize,
    begin: u64,
    /// Exclusive. The last big-block of a window may be continued in the next one.
    end: u64,
    /// What reaches furthest of all windows before.
    last: Option<Extent>,
    overflowed: bool,
}

/// The end of all addresses without zone.
const END: u64 = 1 << 60;

impl Window {
    /// A window that begins at the first address, with room for `bytes` of memory.
    pub(super) fn new(bytes: usize) -> Result<Self, Error> {
        let capacity = bytes / size_of::<Extent>();
        let mut found = Vec::new();
        found.try_reserve_exact(capacity).map_err(|_| Error::NoMemory)?;
        Ok(Self { found, capacity, begin: 0, end: END, last: None, overflowed: false })
    }

    pub(super) fn is_done(&self) -> bool {
        self.begin >= END
    }

    pub(super) fn add(&mut self, extent: Extent) {
        if !(self.begin..self.end).contains(&extent.long()) {
            return;
        }
        if self.found.len() >= self.capacity && !self.overflowed {
            self.shrink();
            if extent.long() >= self.end {
                return;
            }
        }
        match self.found.len() < self.capacity {
            true => self.found.push(extent),
            false => self.overflowed = true,
        }
    }

    /// Leaves the upper half to the next window.
    fn shrink(&mut self) {
        self.found.sort_unstable_by_key(Extent::long);
        let Some(middle) = self.found.get(self.found.len() / 2).map(Extent::long) else { return };
        let first = self.found.first().map_or(0, Extent::long);
        self.end = middle.max(first + 1);
        let kept = self.found.partition_point(|e| e.long() < self.end);
        self.found.truncate(kept);
    }

    /// Compares the window with the freemap, and goes on to the next one.
    pub(super) fn finish(&mut self, space: &mut Space<'_>, w: &mut dyn Wait, log: &mut Log<'_>) {
        if self.overflowed {
            log.found(Finding::new(Kind::LimitReached, Offset(self.begin)));
        }
        self.found.sort_unstable_by_key(|e| (e.long(), core::cmp::Reverse(e.len), e.pfs, e.obj_id));
        self.overlaps(space, log);
        space.compare(w, self.begin..self.end, &self.found, log);
        (self.begin, self.end) = (self.end, END);
        self.found.clear();
        self.overflowed = false;
    }

    fn overlaps(&mut self, space: &Space<'_>, log: &mut Log<'_>) {
        for e in &self.found {
            if let Some(last) = self.last.filter(|l| e.long() < l.long() + l.bytes()) {
                let same = (e.at, e.len, e.what) == (last.at, last.len, last.what);
                if !(same && e.what == Use::Data && space.may_share) {
                    log.found(e.finding(Kind::Overlap).values(e.at.0, last.at.0 + last.bytes()));
                }
            }
            if self.last.is_none_or(|l| e.long() + e.bytes() > l.long() + l.bytes()) {
                self.last = Some(*e);
            }
        }
    }
}

/// The version that introduced deduplication.
const VERSION_DEDUP: u32 = 5;

/// The freemap, read big-block by big-block.
pub(super) struct Space<'m> {
    media: &'m Media,
    depth: Depth,
    may_share: bool,
    /// Big-blocks of layer 1, layer 2 and FIFO, by address without zone.
    tables: Vec<(u64, Zone)>,
    /// Free big-blocks of all tables that were finished.
    free_blocks: u64,
    /// Of the table that the last window ended in.
    free_so_far: u64,
    /// In the big-block that the last window ended in.
    so_far: InUse,
}

/// What is in use of a big-block.
#[derive(Clone, Copy, Default)]
struct InUse {
    bytes: u64,
    /// Behind the last byte, from the start of the big-block.
    end: u64,
}

impl<'m> Space<'m> {
    /// Looks at layer 1.
    pub(super) fn new(
        media: &'m Media,
        w: &mut dyn Wait,
        depth: Depth,
        log: &mut Log<'_>,
    ) -> Result<Self, Error> {
        let may_share = media.header().vol_version.get() >= VERSION_DEDUP;
        let mut space = Self {
            media,
            depth,
            may_share,
            tables: Vec::new(),
            free_blocks: 0,
            free_so_far: 0,
            so_far: InUse::default(),
        };
        let header = media.header();
        let fifo = Offset(header.vol0_blockmap.get(3).map_or(0, |m| m.alloc_offset.get())).long();
        for slot in header.vol0_undo_array.iter().take((fifo / BIG_BLOCK_SIZE) as usize) {
            space.remember(Offset(slot.get()), Zone::UNDO)?;
        }
        space.remember(layer1_table(media), Zone::FREEMAP)?;
        let layer1 = layer1_table(media);
        let mut tables = Vec::new();
        for volume in 0..=u8::MAX {
            let blocks = space.blocks(volume);
            if blocks == 0 && depth == Depth::Quick {
                continue;
            }
            let begin = u64::from(volume) * LAYER1_PER_VOLUME;
            let slots = match depth {
                Depth::Full => LAYER1_PER_VOLUME,
                Depth::Quick => blocks.div_ceil(LAYER2_ENTRIES),
            };
            let each = &mut |log: &mut Log<'_>, slot, at, entry: Layer1| {
                let place = Offset(entry.phys_offset.get());
                let finding = Finding::new(Kind::Layer1Address, at);
                if (slot - begin) * LAYER2_ENTRIES < blocks {
                    let fits = place.zone() == Zone::RAW_BUFFER && place.in_big_block() == 0;
                    if fits && super::is_readable(media, place) {
                        tables.push(place);
                    } else {
                        log.found(finding.values(place.0, 0));
                    }
                } else if place != Offset::UNAVAILABLE || entry.blocks_free.get() != 0 {
                    // Of a volume that was removed, or never was.
                    log.found(finding.values(place.0, Offset::UNAVAILABLE.0));
                }
            };
            space.scan(w, layer1, begin..begin + slots, Kind::Layer1Checksum, log, each);
        }
        for place in tables {
            space.remember(place, Zone::FREEMAP)?;
        }
        space.tables.sort_unstable();
        if space.tables.is_sorted_by(|a, b| a.0 < b.0) {
            return Ok(space);
        }
        log.found(Finding::new(Kind::Layer2Owner, layer1_table(media)));
        Ok(space)
    }

    fn remember(&mut self, at: Offset, zone: Zone) -> Result<(), Error> {
        self.tables.try_reserve(1).map_err(|_| Error::NoMemory)?;
        self.tables.push((at.long(), zone));
        Ok(())
    }

    /// Whole big-blocks of a volume.
    fn blocks(&self, volume: u8) -> u64 {
        self.media.volume(volume).map_or(0, |v| v.buffers_len / BIG_BLOCK_SIZE)
    }

    /// Hands out the entries of a table, each with its number and place, but for those that cannot be read or are wrong in
    /// themselves.
    fn scan<T: Checked>(
        &self,
        w: &mut dyn Wait,
        table: Offset,
        slots: Range<u64>,
        kind: Kind,
        log: &mut Log<'_>,
        each: &mut dyn FnMut(&mut Log<'_>, u64, Offset, T),
    ) {
        let size = size_of::<T>() as u64;
        let per_page = BUFFER_SIZE as u64 / size;
        // Most entries are alike: a sum that was right is not made again.
        let mut right = Vec::new();
        let mut slot = slots.start;
        while slot < slots.end {
            let end = ((slot / per_page + 1) * per_page).min(slots.end);
            let at = |slot: u64| Offset(table.0.saturating_add(slot * size));
            let page = match self.media.page(w, at(slot), Structure::Freemap) {
                Ok(page) => page,
                Err(_) => {
                    log.freemap_unknown = true;
                    log.found(Finding::new(kind, at(slot)));
                    slot = end;
                    continue;
                }
            };
            let bytes = page.bytes().get(at(slot).in_buffer()..).unwrap_or_default();
            for (slot, bytes) in (slot..end).zip(bytes.chunks_exact(size_of::<T>())) {
                let Ok(entry) = T::read_from_bytes(bytes) else { continue };
                if right != bytes {
                    let covered = bytes.get(..T::COVERED).unwrap_or_default();
                    if self.media.checksum().check(entry.stored(), covered).is_none() {
                        log.freemap_unknown = true;
                        log.found(Finding::new(kind, at(slot)));
                        continue;
                    }
                    right.clear();
                    right.extend_from_slice(bytes);
                }
                each(log, slot, at(slot), entry);
            }
            slot = end;
        }
    }

    /// Looks at the layer-2 entries of a window, and at what is in use there: `extents` are sorted by address.
    fn compare(&mut self, w: &mut dyn Wait, window: Range<u64>, extents: &[Extent], log: &mut Log<'_>) {
        let mut rest = extents;
        // In the order of addresses.
        for volume in 0..=u8::MAX {
            let base = Offset::new(Zone(0), volume, 0).0;
            let blocks = self.blocks(volume);
            let block_at = |long: u64| long.saturating_sub(base) / BIG_BLOCK_SIZE;
            let begin = block_at(window.start).min(blocks);
            let end = window.end.saturating_sub(base).div_ceil(BIG_BLOCK_SIZE).min(blocks);
            let tables = begin / LAYER2_ENTRIES..end.div_ceil(LAYER2_ENTRIES);
            for table in tables {
                let slots = (table * LAYER2_ENTRIES).max(begin)..((table + 1) * LAYER2_ENTRIES).min(end);
                if slots.is_empty() {
                    continue;
                }
                self.compare_table(w, &window, volume, slots, &mut rest, log);
            }
        }
    }

    fn compare_table(
        &mut self,
        w: &mut dyn Wait,
        window: &Range<u64>,
        volume: u8,
        slots: Range<u64>,
        rest: &mut &[Extent],
        log: &mut Log<'_>,
    ) {
        let table = slots.start / LAYER2_ENTRIES;
        let slot = u64::from(volume) * LAYER1_PER_VOLUME + table;
        // What is wrong with it was said when layer 1 was looked at.
        let quiet = &mut Log { out: &mut |_| (), report: log.report, freemap_unknown: true };
        let mut layer1 = None;
        let each = &mut |_: &mut Log<'_>, _, at, entry: Layer1| layer1 = Some((at, entry));
        self.scan(w, layer1_table(self.media), slot..slot + 1, Kind::Layer1Checksum, quiet, each);
        let Some((layer1_at, layer1)) = layer1 else { return };
        let place = Offset(layer1.phys_offset.get());
        // The entry of a big-block stands at its number within the table.
        let begin = table * LAYER2_ENTRIES;
        let long = |block: u64| Offset::new(Zone(0), volume, block * BIG_BLOCK_SIZE).0;
        let (mut free, mut so_far) = (self.free_so_far, self.so_far);
        if long(begin) >= window.start {
            free = 0;
        }
        let each = &mut |log: &mut Log<'_>, slot, at, entry: Layer2| {
            let (block, next) = (long(begin + slot), long(begin + slot) + BIG_BLOCK_SIZE);
            let behind = rest.partition_point(|e| e.long() < next);
            let (mine, behind) = rest.split_at(behind);
            *rest = behind;
            let mine = mine.get(mine.partition_point(|e| e.long() < block)..).unwrap_or_default();
            if block >= window.start {
                so_far = InUse::default();
            }
            for e in mine {
                so_far.bytes += e.bytes();
                so_far.end = so_far.end.max(e.long() - block + e.bytes());
                if e.at.zone().0 != entry.zone {
                    let finding = e.finding(Kind::WrongOwner);
                    log.found(finding.values(entry.zone.into(), e.at.zone().0.into()));
                }
            }
            if next <= window.end {
                free += u64::from(entry.zone == Zone::FREE.0);
                self.compare_block(at, block, &entry, so_far, log);
            }
        };
        self.scan(w, place, slots.start - begin..slots.end - begin, Kind::Layer2Checksum, log, each);
        (self.free_so_far, self.so_far) = (free, so_far);
        let end = (begin + LAYER2_ENTRIES).min(self.blocks(volume));
        if slots.end < end || window.end < long(end) {
            return;
        }
        self.free_blocks += free;
        if layer1.blocks_free.get() != free && !log.freemap_unknown {
            let finding = Finding::new(Kind::Layer1Free, layer1_at);
            log.found(finding.values(layer1.blocks_free.get(), free));
        }
        if self.depth == Depth::Full {
            let each = &mut |log: &mut Log<'_>, _, at, entry: Layer2| {
                if entry.zone != Zone::UNAVAILABLE.0 {
                    let finding = Finding::new(Kind::Layer2Owner, at);
                    log.found(finding.values(entry.zone.into(), Zone::UNAVAILABLE.0.into()));
                }
            };
            self.scan(w, place, end - begin..LAYER2_ENTRIES, Kind::Layer2Checksum, log, each);
        }
    }

    fn compare_block(&self, at: Offset, block: u64, entry: &Layer2, in_use: InUse, log: &mut Log<'_>) {
        let zone = Zone(entry.zone);
        let (append, free) = (u64::from(entry.append_off.get()), i64::from(entry.bytes_free.get()));
        let size = BIG_BLOCK_SIZE as i64;
        let table = self.tables.binary_search_by_key(&block, |t| t.0).ok();
        let table = table.and_then(|i| self.tables.get(i)).map(|t| t.1);
        let finding = |kind| Finding::new(kind, at);
        let owner_fits = match (table, zone) {
            (Some(wanted), zone) => wanted == zone,
            (None, Zone::FREE | Zone::BTREE | Zone::META | Zone::LARGE_DATA | Zone::SMALL_DATA) => true,
            _ => false,
        };
        if !owner_fits {
            let expected = table.unwrap_or(Zone::FREE);
            log.found(finding(Kind::Layer2Owner).values(zone.0.into(), expected.0.into()));
        }
        let state_fits = match zone {
            Zone::FREE => (append, free) == (0, size),
            Zone::UNDO | Zone::FREEMAP => (append, free) == (BIG_BLOCK_SIZE, 0),
            _ => {
                let shared = zone == Zone::LARGE_DATA || zone == Zone::SMALL_DATA;
                append <= BIG_BLOCK_SIZE
                    && append.is_multiple_of(16)
                    && free <= size
                    && (free >= 0 || (shared && self.may_share))
            }
        };
        if !state_fits {
            log.found(finding(Kind::Layer2State));
            return;
        }
        if !matches!(zone, Zone(8..=11)) {
            return;
        }
        let InUse { bytes: used, end } = in_use;
        let recorded = size - free;
        if end > append {
            log.found(finding(Kind::AppendTooLow).values(append, end));
        }
        if used as i64 > recorded {
            log.found(finding(Kind::SpaceOverused).values(recorded as u64, used));
        } else if used == 0 {
            log.found(finding(Kind::BigBlockLeaked).values(recorded as u64, 0));
        } else if (used as i64) < recorded {
            log.found(finding(Kind::SpaceLeaked).values(recorded as u64, used));
        }
    }

    /// Compares the header's counters, when all windows are finished.
    pub(super) fn counters(&self, log: &mut Log<'_>) {
        if log.freemap_unknown {
            return;
        }
        let header = self.media.header();
        let at = |byte: usize| Offset::new(Zone::RAW_VOLUME, 0, byte as u64);
        let free = header.vol0_stat_freebigblocks.get() as u64;
        if free != self.free_blocks {
            let place = at(core::mem::offset_of!(VolumeHeader, vol0_stat_freebigblocks));
            log.found(Finding::new(Kind::FreeCount, place).values(free, self.free_blocks));
        }
        let blocks: u64 = self.media.volumes().map(|v| v.buffers_len / BIG_BLOCK_SIZE).sum();
        let usable = blocks.saturating_sub(self.tables.len() as u64);
        let stored = header.vol0_stat_bigblocks.get() as u64;
        if stored != usable {
            let place = at(core::mem::offset_of!(VolumeHeader, vol0_stat_bigblocks));
            log.found(Finding::new(Kind::BigBlockCount, place).values(stored, usable));
        }
    }
}

/// An entry of the freemap that carries a checksum.
trait Checked: FromBytes {
    const COVERED: usize;
    fn stored(&self) -> u32;
}

impl Checked for Layer1 {
    const COVERED: usize = Self::CRC_LEN;
    fn stored(&self) -> u32 {
        self.layer1_crc.get()
    }
}

impl Checked for Layer2 {
    const COVERED: usize = Self::CRC_LEN;
    fn stored(&self) -> u32 {
        self.entry_crc.get()
    }
}

const _: () = assert!(size_of::<Extent>() == 24 && BUFFER_SIZE.is_multiple_of(size_of::<Layer1>()));
