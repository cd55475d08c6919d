//! Space: big-blocks of 8 MiB belong to zones, and are filled from their start to their end.
//!
//! What is freed only lowers a count; a big-block that becomes empty is free again, but behind a fence until the
//! group that emptied it can no longer be undone: a crash could bring back what it held.

use dfly_hal::Wait;
use zerocopy::IntoBytes;

use super::op::{FIRST_ALLOCATED, Op};
use crate::error::{Error, Structure};
use crate::ondisk::freemap::{Layer1, Layer2};
use crate::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, MAX_RECORD_DATA, Offset, Zone};

/// Everything is allocated in units of this many bytes.
const UNIT: usize = 16;

/// Bytes that one layer-1 entry stands for.
const LAYER1_SPAN: u64 = 1 << 42;

/// What `len` bytes take.
pub(crate) const fn footprint(len: usize) -> usize {
    len.next_multiple_of(UNIT)
}

/// The zone's place among those that space is allocated in.
pub(crate) const fn rotor_index(zone: Zone) -> usize {
    zone.0.wrapping_sub(FIRST_ALLOCATED) as usize
}

impl Op<'_, '_> {
    /// Takes `len` bytes in a zone: within one buffer, or within one big-block if it is more. May block.
    pub(crate) fn allocate(&mut self, w: &mut dyn Wait, zone: Zone, len: usize) -> Result<Offset, Error> {
        let wrong = Error::corrupt(Structure::Freemap, Offset::NONE, "an allocation of impossible size");
        if !(1..=MAX_RECORD_DATA).contains(&len) {
            return Err(wrong);
        }
        let len = footprint(len) as u64;
        let unit = if len <= BUFFER_SIZE as u64 { BUFFER_SIZE as u64 } else { BIG_BLOCK_SIZE };
        let rotor = *self.changes.figures.rotors.get(rotor_index(zone)).ok_or(wrong)?;
        let mut at = if rotor.zone() == zone { rotor } else { Offset::new(zone, 0, 0) };
        let mut been_round = false;
        loop {
            let Some(volume) = self.media.volume(at.volume()).filter(|_| at.zone() == zone) else {
                if at.zone() == zone {
                    at = next_volume(at);
                } else if been_round {
                    return Err(Error::NoSpace);
                } else {
                    been_round = true;
                    at = Offset::new(zone, 0, 0);
                }
                continue;
            };
            if at.byte() >= volume.buffers_len {
                at = next_volume(at);
                continue;
            }
            if at.0 % unit + len > unit {
                at = Offset((at.0 / unit + 1) * unit);
                continue;
            }
            let Some((layer1_at, layer1)) = self.layer1(w, at)? else {
                at = next_volume(at);
                continue;
            };
            // With no big-block left to begin, only the one that the rotor stands in can have room.
            if at.in_big_block() == 0 && layer1.blocks_free.get() == 0 {
                at = next(at, LAYER1_SPAN);
                continue;
            }
            let (layer2_at, layer2) = self.layer2(w, &layer1, at)?;
            let is_free = layer2.zone == Zone::FREE.0;
            if layer2.zone != zone.0 && !is_free || is_free && self.is_fenced(at) {
                at = next(at, BIG_BLOCK_SIZE);
                continue;
            }
            if is_free && self.changes.figures.free_big_blocks - self.fenced() <= self.reserve {
                return Err(Error::NoSpace);
            }
            let append = u64::from(layer2.append_off.get());
            if !is_free && at.in_big_block() < append {
                at = Offset(at.0 - at.in_big_block() + append);
                continue;
            }
            self.take(w, (at, len), (layer1_at, layer1), (layer2_at, layer2))?;
            return Ok(at);
        }
    }

    fn take(
        &mut self,
        w: &mut dyn Wait,
        (at, len): (Offset, u64),
        (layer1_at, mut layer1): (Offset, Layer1),
        (layer2_at, mut layer2): (Offset, Layer2),
    ) -> Result<(), Error> {
        let wrong = |what| Error::corrupt(Structure::Freemap, layer2_at, what);
        if layer2.zone == Zone::FREE.0 {
            let left = layer1.blocks_free.get().checked_sub(1);
            layer1.blocks_free = left.ok_or(wrong("more free big-blocks than are counted"))?.into();
            self.put_layer1(w, layer1_at, layer1)?;
            self.changes.figures.free_big_blocks -= 1;
            layer2.zone = at.zone().0;
            layer2.bytes_free = (BIG_BLOCK_SIZE as i32).into();
        }
        let left = layer2.bytes_free.get().checked_sub(len as i32);
        layer2.bytes_free = left.ok_or(wrong("count of free bytes cannot be"))?.into();
        layer2.append_off = ((at.in_big_block() + len) as u32).into();
        self.put_layer2(w, layer2_at, layer2)?;
        if let Some(rotor) = self.changes.figures.rotors.get_mut(rotor_index(at.zone())) {
            *rotor = Offset(at.0 + len);
        }
        // From here to the end of the last buffer all was free.
        let raw = at.in_zone(Zone::RAW_BUFFER);
        let mut buffer = raw.buffer();
        while buffer.0 < raw.0 + len {
            let from = if buffer == raw.buffer() { raw.in_buffer() } else { 0 };
            let fresh = self.changes.fresh.entry(buffer).or_insert(from);
            *fresh = from.min(*fresh);
            buffer = Offset(buffer.0 + BUFFER_SIZE as u64);
        }
        Ok(())
    }

    /// Gives back the `len` bytes of a record or a node. May block.
    pub(crate) fn free(&mut self, w: &mut dyn Wait, at: Offset, len: usize) -> Result<(), Error> {
        let wrong = |what| Error::corrupt(Structure::Freemap, at, what);
        let missing = wrong("what is freed lies where there is no space");
        let (layer1_at, mut layer1) = self.layer1(w, at)?.ok_or(missing)?;
        let (layer2_at, mut layer2) = self.layer2(w, &layer1, at)?;
        if layer2.zone != at.zone().0 {
            return Err(wrong("what is freed lies in another zone's big-block"));
        }
        let free = i64::from(layer2.bytes_free.get()) + footprint(len) as i64;
        if free > BIG_BLOCK_SIZE as i64 {
            return Err(wrong("more is freed than was used"));
        }
        layer2.bytes_free = (free as i32).into();
        if free == BIG_BLOCK_SIZE as i64 {
            layer2.zone = Zone::FREE.0;
            layer2.append_off = 0.into();
            layer1.blocks_free = (layer1.blocks_free.get() + 1).into();
            self.put_layer1(w, layer1_at, layer1)?;
            self.changes.figures.free_big_blocks += 1;
            self.changes.freed.push(big_block(at));
        }
        self.put_layer2(w, layer2_at, layer2)
    }

    /// Big-blocks that are counted as free and cannot be taken yet.
    fn fenced(&self) -> i64 {
        (self.fences.len() + self.changes.freed.len()) as i64
    }

    /// Whether the big-block of `at` may hold what a crash would bring back.
    fn is_fenced(&self, at: Offset) -> bool {
        let block = big_block(at);
        self.fences.holds(block) || self.changes.freed.contains(&block)
    }

    /// The entry for the 4 TiB that hold `at`, and where it lies; `None` where no space lies behind it.
    fn layer1(&self, w: &mut dyn Wait, at: Offset) -> Result<Option<(Offset, Layer1)>, Error> {
        let map = self.media.header().vol0_blockmap.get(Zone::FREEMAP.0 as usize);
        let table = map.map_or(0, |m| m.phys_offset.get());
        let (entry_at, entry): (_, Layer1) = self.table_entry(w, Offset(table), Layer1::position(at))?;
        self.verify(entry_at, entry.layer1_crc.get(), &entry, Layer1::CRC_LEN)?;
        Ok((entry.phys_offset.get() != Offset::UNAVAILABLE.0).then_some((entry_at, entry)))
    }

    /// The entry for the big-block that holds `at`, and where it lies.
    fn layer2(&self, w: &mut dyn Wait, layer1: &Layer1, at: Offset) -> Result<(Offset, Layer2), Error> {
        let table = Offset(layer1.phys_offset.get());
        let (entry_at, entry): (_, Layer2) = self.table_entry(w, table, Layer2::position(at))?;
        self.verify(entry_at, entry.entry_crc.get(), &entry, Layer2::CRC_LEN)?;
        Ok((entry_at, entry))
    }

    fn table_entry<T: zerocopy::FromBytes + IntoBytes>(
        &self,
        w: &mut dyn Wait,
        table: Offset,
        position: u64,
    ) -> Result<(Offset, T), Error> {
        let outside = Error::OutOfRange { structure: Structure::Freemap, at: table };
        if table.zone() != Zone::RAW_BUFFER || table.in_big_block() != 0 {
            return Err(outside);
        }
        let at = table.checked_add(position).ok_or(outside)?;
        Ok((at, self.read(w, at)?))
    }

    fn verify<T: IntoBytes + zerocopy::Immutable>(
        &self,
        at: Offset,
        stored: u32,
        entry: &T,
        covered: usize,
    ) -> Result<(), Error> {
        let bytes = entry.as_bytes().get(..covered).unwrap_or_default();
        let found = self.media.checksum().check(stored, bytes);
        found.map(drop).ok_or(Error::Checksum { structure: Structure::Freemap, at, stored })
    }

    fn put_layer1(&mut self, w: &mut dyn Wait, at: Offset, mut entry: Layer1) -> Result<(), Error> {
        let bytes = entry.as_bytes().get(..Layer1::CRC_LEN).unwrap_or_default();
        entry.layer1_crc = self.media.checksum().newest().of(bytes).into();
        self.write(w, at, &entry)
    }

    fn put_layer2(&mut self, w: &mut dyn Wait, at: Offset, mut entry: Layer2) -> Result<(), Error> {
        let bytes = entry.as_bytes().get(..Layer2::CRC_LEN).unwrap_or_default();
        entry.entry_crc = self.media.checksum().newest().of(bytes).into();
        self.write(w, at, &entry)
    }
}

/// The big-block that holds `at`, by raw address.
pub(super) fn big_block(at: Offset) -> Offset {
    Offset(at.in_zone(Zone::RAW_BUFFER).0 - at.in_big_block())
}

/// The next multiple of `step`. Behind the last volume that is an address of the next zone.
fn next(at: Offset, step: u64) -> Offset {
    Offset((at.0 / step + 1).saturating_mul(step))
}

fn next_volume(at: Offset) -> Offset {
    next(at, 1 << 52)
}
