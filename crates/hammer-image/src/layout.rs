//! Where things lie: volumes, the freemap, the allocator, the header.

use std::collections::BTreeMap;

use dfly_hammer::crc::{Checksum, Flavor};
use dfly_hammer::ondisk::freemap::{LAYER1_ENTRIES, LAYER1_PER_VOLUME, LAYER2_ENTRIES, Layer1, Layer2};
use dfly_hammer::ondisk::volume::{BlockmapEntry, FSTYPE, SIGNATURE, UNDO_BLOCKS, VolumeHeader};
use dfly_hammer::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, MAX_VOLUMES, Offset, VERSION_MAX, Zone};
use zerocopy::{FromZeros, IntoBytes};

use crate::image::{CHUNK, Image, Volume};
use crate::{Error, Result};

/// Size of the area before the boot area, of the boot area, and of the memory log, as `newfs_hammer` sets them.
const HEADER_AREA: u64 = 256 << 10;
const BOOT_AREA: u64 = 32 << 10;
const MEMORY_LOG: u64 = 256 << 10;
/// Device byte of the first big-block.
const BUFFERS_BEGIN: u64 = HEADER_AREA + BOOT_AREA + MEMORY_LOG;

/// What `newfs_hammer` would ask for.
#[derive(Clone, Debug)]
pub struct Format {
    /// Version of the file system, 1 to 7: decides on checksums, on the hash of names, and on the FIFO.
    pub version: u32,
    /// Label of the file system, 63 bytes at most.
    pub label: String,
    /// UUID of the file system.
    pub fsid: [u8; 16],
    /// Size of each volume, in bytes.
    pub volumes: Vec<u64>,
    /// Size of the FIFO, a multiple of 8 MiB up to 1 GiB, in bytes.
    pub fifo_bytes: u64,
}

impl Default for Format {
    /// Version 7, one volume of 64 MiB, a FIFO of 8 MiB.
    fn default() -> Self {
        Self {
            version: VERSION_MAX,
            label: "TEST".into(),
            fsid: *b"dfly\x01\x02\x43\x04\x85\x06test\x07\x08",
            volumes: vec![64 << 20],
            fifo_bytes: BIG_BLOCK_SIZE,
        }
    }
}

/// A big-block that somebody owns.
#[derive(Clone, Copy)]
struct Owned {
    zone: Zone,
    append: u64,
    free: i64,
}

/// The freemap and the allocator's positions: step by step the rules of the original.
pub(crate) struct Space {
    flavor: Flavor,
    /// Big-blocks of each volume, whole ones only.
    blocks: Vec<u64>,
    /// Those that somebody owns, by volume and number.
    owned: BTreeMap<(usize, u64), Owned>,
    /// Where each zone's next allocation is tried.
    next: [Offset; 16],
    fifo: Vec<Offset>,
    /// Big-blocks that were free when freemap and FIFO had taken theirs.
    usable: u64,
}

/// What the header says about the contents.
pub(crate) struct Contents {
    pub(crate) root: Offset,
    pub(crate) next_tid: u64,
    pub(crate) inodes: i64,
}

impl Format {
    /// Formats the volumes: headers without contents, an empty freemap in memory, a fresh FIFO.
    pub(crate) fn begin(&self) -> Result<(Image, Space)> {
        let fail = |what: &str| Err(Error::Description(what.into()));
        if !(1..=VERSION_MAX).contains(&self.version) {
            return fail("the version is not 1 to 7");
        }
        if self.volumes.is_empty() || self.volumes.len() > MAX_VOLUMES {
            return fail("there are 1 to 256 volumes");
        }
        if self.label.len() > 63 {
            return fail("the label is longer than 63 bytes");
        }
        let fifo_blocks = self.fifo_bytes / BIG_BLOCK_SIZE;
        if !self.fifo_bytes.is_multiple_of(BIG_BLOCK_SIZE) || !(1..=UNDO_BLOCKS as u64).contains(&fifo_blocks)
        {
            return fail("the FIFO's size is not a multiple of 8 MiB up to 1 GiB");
        }
        let blocks =
            self.volumes.iter().map(|&size| buffers_end(size).saturating_sub(BUFFERS_BEGIN) / BIG_BLOCK_SIZE);
        let mut space = Space {
            flavor: Checksum::of_version(self.version).newest(),
            blocks: blocks.collect(),
            owned: BTreeMap::new(),
            next: core::array::from_fn(|zone| Offset::new(Zone(zone as u8), 0, 0)),
            fifo: Vec::new(),
            usable: 0,
        };
        // Layer 1 and the root volume's layer 2, the other volumes' layer 2, then the FIFO on the root volume.
        for volume in 0..self.volumes.len() {
            let tables = layer2_tables(self.volumes[volume]) + u64::from(volume == 0);
            for block in 0..tables {
                space.take(volume, block, Zone::FREEMAP)?;
            }
            if volume == 0 {
                for block in tables..tables + fifo_blocks {
                    let at = space.take(0, block, Zone::UNDO)?;
                    space.fifo.push(at);
                }
            }
        }
        space.usable = space.blocks.iter().sum::<u64>() - space.owned.len() as u64;
        let mut image = Image { volumes: self.volumes.iter().map(|&size| Volume::new(size)).collect() };
        self.write_headers(&mut image, &space, &Contents { root: Offset::NONE, next_tid: 0, inodes: 0 })?;
        self.format_fifo(&mut image, &space)?;
        Ok((image, space))
    }

    /// Writes the freemap and the headers as they are now.
    pub(crate) fn end(&self, image: &mut Image, space: &Space, contents: &Contents) -> Result<()> {
        space.write_freemap(image, self)?;
        self.write_headers(image, space, contents)
    }

    fn write_headers(&self, image: &mut Image, space: &Space, contents: &Contents) -> Result<()> {
        for volume in 0..self.volumes.len() {
            let mut header = VolumeHeader::new_zeroed();
            header.vol_signature = SIGNATURE.into();
            header.vol_bot_beg = (HEADER_AREA as i64).into();
            header.vol_mem_beg = ((HEADER_AREA + BOOT_AREA) as i64).into();
            header.vol_buf_beg = (BUFFERS_BEGIN as i64).into();
            header.vol_buf_end = (buffers_end(self.volumes[volume]) as i64).into();
            header.vol_fsid = self.fsid;
            header.vol_fstype = FSTYPE;
            header.vol_label[..self.label.len()].copy_from_slice(self.label.as_bytes());
            header.vol_no = (volume as i32).into();
            header.vol_count = (self.volumes.len() as i32).into();
            header.vol_version = self.version.into();
            if volume == 0 {
                header.vol0_stat_bigblocks = (space.usable as i64).into();
                let free = space.blocks.iter().sum::<u64>() - space.owned.len() as u64;
                header.vol0_stat_freebigblocks = (free as i64).into();
                header.vol0_stat_inodes = contents.inodes.into();
                header.vol0_btree_root = contents.root.0.into();
                header.vol0_next_tid = contents.next_tid.into();
                header.vol0_blockmap = self.blockmap(space);
                // Unused slots are all ones in real images.
                header.vol0_undo_array.fill(u64::MAX.into());
                for (slot, block) in header.vol0_undo_array.iter_mut().zip(&space.fifo) {
                    *slot = block.0.into();
                }
            }
            image.put_header(volume, &header)?;
        }
        Ok(())
    }

    fn blockmap(&self, space: &Space) -> [BlockmapEntry; 16] {
        core::array::from_fn(|index| {
            let zone = Zone(index as u8);
            let base = Offset::new(zone, 0, 0).0;
            let (phys, first, next, alloc) = match zone {
                Zone::UNDO => (u64::MAX, base, base, base + self.fifo_bytes),
                Zone::FREEMAP => {
                    let raw = Offset::new(Zone::RAW_BUFFER, 0, 0).0;
                    (raw, 0, raw, raw | ((1 << 60) - 1))
                }
                Zone(8..) => (0, base, space.next[index].0, base | ((1 << 60) - 1)),
                _ => return BlockmapEntry::new_zeroed(),
            };
            let mut entry = BlockmapEntry::new_zeroed();
            entry.phys_offset = phys.into();
            entry.first_offset = first.into();
            entry.next_offset = next.into();
            entry.alloc_offset = alloc.into();
            entry.entry_crc = space.flavor.of(&entry.as_bytes()[..36]).into();
            entry
        })
    }

    /// One DUMMY record for each sector, numbered from 0.
    fn format_fifo(&self, image: &mut Image, space: &Space) -> Result<()> {
        let mut seq = 0;
        for block in &space.fifo {
            for buffer in (0..BIG_BLOCK_SIZE).step_by(CHUNK) {
                let bytes = crate::fifo::dummies(space.flavor, seq);
                image.volumes[0].write_at(BUFFERS_BEGIN + block.byte() + buffer, &bytes)?;
                seq += (bytes.len() as u64 / dfly_hammer::ondisk::fifo::SECTOR) as u32;
            }
        }
        Ok(())
    }
}

impl Space {
    /// Allocates `bytes` in a zone: within a buffer, or within a big-block if it is more than a buffer.
    pub(crate) fn alloc(&mut self, zone: Zone, bytes: usize) -> Result<Offset> {
        let len = bytes.next_multiple_of(16) as u64;
        let no_space = Error::NoSpace { zone: zone.0, bytes };
        let unit = if len <= BUFFER_SIZE as u64 { BUFFER_SIZE as u64 } else { BIG_BLOCK_SIZE };
        let (mut volume, mut byte) =
            (usize::from(self.next[usize::from(zone.0)].volume()), { self.next[usize::from(zone.0)].byte() });
        loop {
            if byte % unit + len > unit {
                byte = byte.next_multiple_of(unit);
            }
            let Some(&blocks) = self.blocks.get(volume) else { return Err(no_space) };
            let block = byte / BIG_BLOCK_SIZE;
            if block >= blocks {
                (volume, byte) = (volume + 1, 0);
                continue;
            }
            let fresh = Owned { zone, append: 0, free: BIG_BLOCK_SIZE as i64 };
            let owner = self.owned.get(&(volume, block)).copied().unwrap_or(fresh);
            if owner.zone != zone {
                byte = (block + 1) * BIG_BLOCK_SIZE;
                continue;
            }
            let within = byte % BIG_BLOCK_SIZE;
            if within < owner.append {
                byte += owner.append - within;
                continue;
            }
            let grown = Owned { zone, append: within + len, free: owner.free - len as i64 };
            self.owned.insert((volume, block), grown);
            // The next position may be the first byte of the next big-block, or of none.
            self.next[usize::from(zone.0)] = Offset::new(zone, volume as u8, byte + len);
            return Ok(Offset::new(zone, volume as u8, byte));
        }
    }

    /// Counts one more reference to what lies at `at`.
    pub(crate) fn share(&mut self, at: Offset, bytes: usize) {
        if let Some(owner) = self.owned.get_mut(&(usize::from(at.volume()), at.byte() / BIG_BLOCK_SIZE)) {
            owner.free -= bytes.next_multiple_of(16) as i64;
        }
    }

    fn take(&mut self, volume: usize, block: u64, zone: Zone) -> Result<Offset> {
        if block >= self.blocks[volume] {
            return Err(Error::NoSpace { zone: zone.0, bytes: BIG_BLOCK_SIZE as usize });
        }
        self.owned.insert((volume, block), Owned { zone, append: BIG_BLOCK_SIZE, free: 0 });
        Ok(Offset::new(Zone::RAW_BUFFER, volume as u8, block * BIG_BLOCK_SIZE))
    }

    fn write_freemap(&self, image: &mut Image, format: &Format) -> Result<()> {
        let nobody = self.layer1(0, u64::MAX);
        let layer1 = BUFFERS_BEGIN;
        let whole_table = BIG_BLOCK_SIZE / CHUNK as u64;
        image.volumes[0].repeat(layer1, repeated(nobody.as_bytes()), whole_table);

        let free = repeated(self.layer2(Zone::FREE, 0, BIG_BLOCK_SIZE as i64).as_bytes());
        let absent = repeated(self.layer2(Zone::UNAVAILABLE, BIG_BLOCK_SIZE, 0).as_bytes());
        let per_chunk = (CHUNK / size_of::<Layer2>()) as u64;
        for (volume, &blocks) in self.blocks.iter().enumerate() {
            let first_table = u64::from(volume == 0);
            let at = BUFFERS_BEGIN + first_table * BIG_BLOCK_SIZE;
            let tables = layer2_tables(format.volumes[volume]);
            let out = &mut image.volumes[volume];
            let boundary = blocks / per_chunk;
            out.repeat(at, free, boundary);
            out.repeat(at + boundary * CHUNK as u64, absent, tables * whole_table - boundary);
            let entry = size_of::<Layer2>() as u64;
            for block in boundary * per_chunk..blocks {
                out.write_at(at + block * entry, &free[..size_of::<Layer2>()])?;
            }
            let mine = self.owned.range((volume, 0)..(volume + 1, 0));
            for (&(_, block), owner) in mine {
                out.write_at(
                    at + block * entry,
                    self.layer2(owner.zone, owner.append, owner.free).as_bytes(),
                )?;
            }
            for table in 0..tables {
                let slots = table * LAYER2_ENTRIES..((table + 1) * LAYER2_ENTRIES).min(blocks);
                let taken = self.owned.range((volume, slots.start)..(volume, slots.end)).count() as u64;
                let place = (first_table + table) * BIG_BLOCK_SIZE;
                let place = Offset::new(Zone::RAW_BUFFER, volume as u8, place).0;
                let entry = self.layer1(slots.end.saturating_sub(slots.start) - taken, place);
                let index = volume as u64 * LAYER1_PER_VOLUME + table;
                debug_assert!(index < LAYER1_ENTRIES);
                image.volumes[0].write_at(layer1 + index * size_of::<Layer1>() as u64, entry.as_bytes())?;
            }
        }
        Ok(())
    }

    fn layer1(&self, blocks_free: u64, phys_offset: u64) -> Layer1 {
        let mut entry = Layer1::new_zeroed();
        entry.blocks_free = blocks_free.into();
        entry.phys_offset = phys_offset.into();
        entry.layer1_crc = self.flavor.of(&entry.as_bytes()[..Layer1::CRC_LEN]).into();
        entry
    }

    fn layer2(&self, zone: Zone, append: u64, free: i64) -> Layer2 {
        let mut entry = Layer2::new_zeroed();
        entry.zone = zone.0;
        entry.append_off = (append as u32).into();
        entry.bytes_free = (free as i32).into();
        entry.entry_crc = self.flavor.of(&entry.as_bytes()[..Layer2::CRC_LEN]).into();
        entry
    }
}

/// Volumes end at a whole buffer.
fn buffers_end(size: u64) -> u64 {
    size - size % BUFFER_SIZE as u64
}

fn layer2_tables(size: u64) -> u64 {
    let blocks = buffers_end(size).saturating_sub(BUFFERS_BEGIN) / BIG_BLOCK_SIZE;
    blocks.div_ceil(LAYER2_ENTRIES)
}

fn repeated(entry: &[u8]) -> [u8; CHUNK] {
    core::array::from_fn(|i| entry[i % entry.len()])
}
