//! Makes a new file system, byte for byte as DragonFly's `newfs_hammer` makes it.
//!
//! [`Plan::new`] checks everything that can be checked; only [`Plan::write`] writes. [`newfs`] does both.
//!
//! ```
//! use dfly_bio::{BlockDevice, MemDisk};
//! use dfly_hal::SpinWait;
//! use dfly_hammer::format::{Options, newfs};
//! use dfly_hammer::{Hammer, MountOptions};
//! use std::sync::Arc;
//!
//! let mut nothing = || ();
//! let w = &mut SpinWait::new(&mut nothing);
//! let disk: Arc<dyn BlockDevice> = Arc::new(MemDisk::new(512, 1 << 17));
//! let mut options = Options::new(b"EXAMPLE", [7; 16], 1_600_000_000_000_000);
//! options.undo_bytes = Some(8 << 20);
//! newfs(&[disk.clone()], &options, w)?;
//! assert_eq!(Hammer::mount(&[disk], MountOptions::default(), w)?.header().label(), b"EXAMPLE");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What differs from the original's bytes: checksums that it leaves zero or stale are right (of the header, and of the
//! blockmap's entries), and the rest of a buffer is zero where it keeps what was on the disk. The original writes in any
//! order; here the headers come last, so what was interrupted is no file system.
//!
//! Source: newfs_hammer(8), and the images that it makes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_bio::{Access, BioError, BlockDevice};
use dfly_hal::Wait;
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::crc::{Checksum, Flavor};
use crate::ondisk::fifo::{FifoHead, FifoTail, HEAD_SIGNATURE, SECTOR, TAIL_SIGNATURE, TYPE_DUMMY};
use crate::ondisk::freemap::{LAYER1_PER_VOLUME, LAYER2_ENTRIES, Layer1, Layer2};
use crate::ondisk::node::{BaseElement, Element, LeafTail, NODE_SIZE, Node, TYPE_LEAF, TYPE_RECORD};
use crate::ondisk::record::{
    CAP_HASH_ALG1, CAP_LOCAL_ENTRIES, InodeData, LOCALIZE_INODE, LOCALIZE_MISC, OBJ_ROOT, ObjType, PfsData,
    RecType,
};
use crate::ondisk::volume::{BlockmapEntry, FSTYPE, SIGNATURE, UNDO_BLOCKS, VolumeHeader};
use crate::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, MAX_VOLUMES, Offset, VERSION_MAX, Zone};

/// Device bytes before the boot area.
const HEADER_AREA: u64 = 256 << 10;
/// Size of the boot area, in bytes.
pub const BOOT_AREA: u64 = 32 << 10;
/// Size of the memory log, in bytes.
pub const MEMORY_LOG: u64 = 256 << 10;
/// Device byte of a volume's first big-block.
const BUFFERS_BEGIN: u64 = HEADER_AREA + BOOT_AREA + MEMORY_LOG;
/// Big-blocks of the FIFO, unless something else is asked for: a thousandth of the root volume, but these at least.
const UNDO_BLOCKS_DEFAULT: u64 = 64;
/// The longest label; a NUL follows it.
pub const MAX_LABEL: usize = 63;

/// The transaction that made the root records. The header names the one before it, as in the original.
const FIRST_TID: u64 = 0x1_0000_0001;
/// Space that the two records take, in bytes: each begins at a multiple of 16.
const META_BYTES: u64 = size_of::<InodeData>() as u64 + PFS_BYTES;
const PFS_BYTES: u64 = size_of::<PfsData>().next_multiple_of(16) as u64;

/// Bytes that are written at once.
const CHUNK: usize = 1 << 20;

/// What to make.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options<'a> {
    /// Label of the file system: at most [`MAX_LABEL`] bytes, without NUL.
    pub label: &'a [u8],
    /// Version of the file system, 1 to 7.
    pub version: u32,
    /// Size of the UNDO/REDO FIFO, in bytes: rounded up to 8 MiB, at most 1 GiB. `None` is a thousandth of the root
    /// volume, but at least 512 MiB.
    pub undo_bytes: Option<u64>,
    /// UUID of the file system: random, and never used before.
    pub fsid: [u8; 16],
    /// The time, in microseconds since the epoch.
    pub now_us: u64,
}

impl<'a> Options<'a> {
    /// The newest version, with a FIFO of the usual size.
    pub const fn new(label: &'a [u8], fsid: [u8; 16], now_us: u64) -> Self {
        Self { label, version: VERSION_MAX, undo_bytes: None, fsid, now_us }
    }
}

/// Why no file system can be made. Volumes are counted from 0 in the order given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// No volume was given, or more than 256.
    #[error("{given} volumes given, a file system has 1 to 256")]
    VolumeCount {
        /// How many were given.
        given: usize,
    },
    /// The same device was given twice.
    #[error("volume {index} was given before")]
    Duplicate {
        /// The second of them.
        index: usize,
    },
    /// The device is too small.
    #[error("volume {index}: device has {bytes} bytes, {needed} are needed")]
    TooSmall {
        /// Which volume.
        index: usize,
        /// Size of the device.
        bytes: u64,
        /// Size that would do.
        needed: u64,
    },
    /// The device is larger than an address can tell.
    #[error("volume {index}: device has {bytes} bytes, 4 PiB are the limit")]
    TooLarge {
        /// Which volume.
        index: usize,
        /// Size of the device.
        bytes: u64,
    },
    /// The device's blocks are larger than a buffer, or do not divide it.
    #[error("volume {index}: blocks of {block_bytes} bytes do not fit buffers of 16 KiB")]
    BlockSize {
        /// Which volume.
        index: usize,
        /// The device's block size.
        block_bytes: u32,
    },
    /// The device cannot be written.
    #[error("volume {index}: device is read-only")]
    ReadOnly {
        /// Which volume.
        index: usize,
    },
    /// The label is too long, or holds a NUL.
    #[error("a label has at most 63 bytes and no NUL")]
    Label,
    /// Nobody knows this version.
    #[error("version {version} is not supported (1 to 7 are)")]
    Version {
        /// What was asked for.
        version: u32,
    },
    /// The FIFO cannot have this size.
    #[error("a FIFO of {bytes} bytes is impossible (1 byte to 1 GiB)")]
    UndoSize {
        /// What was asked for.
        bytes: u64,
    },
    /// The device failed. What is on the volumes is no file system.
    #[error("volume {index}: {error}")]
    Device {
        /// Which volume.
        index: usize,
        /// What the device said.
        #[source]
        error: BioError,
    },
    /// Memory could not be allocated.
    #[error("out of memory")]
    NoMemory,
}

/// How far the writing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that were written.
    pub done_bytes: u64,
    /// Bytes that will be written in all.
    pub total_bytes: u64,
}

/// Makes a new file system on `devices`, the root volume first. What they hold is lost. May block.
///
/// # Errors
/// A [`FormatError`]. Only [`FormatError::Device`] leaves anything written.
pub fn newfs(
    devices: &[Arc<dyn BlockDevice>],
    options: &Options<'_>,
    w: &mut dyn Wait,
) -> Result<(), FormatError> {
    Plan::new(devices, options)?.write(w, &mut |_| ())
}

/// A file system that could be made. Nothing is written yet.
pub struct Plan<'a> {
    volumes: Vec<Volume>,
    undo_blocks: u64,
    flavor: Flavor,
    options: Options<'a>,
}

struct Volume {
    device: Arc<dyn BlockDevice>,
    /// Device byte behind the last buffer.
    end: u64,
    /// Whole big-blocks.
    blocks: u64,
    /// Layer-2 tables: one for each 4 TiB of whole big-blocks.
    tables: u64,
}

impl<'a> Plan<'a> {
    /// Checks the options and the sizes of `devices`, the root volume first. Writes nothing.
    ///
    /// # Errors
    /// All of [`FormatError`] but [`FormatError::Device`].
    pub fn new(devices: &[Arc<dyn BlockDevice>], options: &Options<'a>) -> Result<Self, FormatError> {
        if devices.is_empty() || devices.len() > MAX_VOLUMES {
            return Err(FormatError::VolumeCount { given: devices.len() });
        }
        if options.label.len() > MAX_LABEL || options.label.contains(&0) {
            return Err(FormatError::Label);
        }
        let version = options.version;
        if !(1..=VERSION_MAX).contains(&version) {
            return Err(FormatError::Version { version });
        }
        let mut volumes = Vec::new();
        volumes.try_reserve_exact(devices.len()).map_err(|_| FormatError::NoMemory)?;
        for (index, device) in devices.iter().enumerate() {
            if devices.iter().take(index).any(|d| Arc::ptr_eq(d, device)) {
                return Err(FormatError::Duplicate { index });
            }
            volumes.push(Volume::new(index, device)?);
        }
        let thousandth = |root: &Volume| (root.end - BUFFERS_BEGIN) / 1000;
        let limit = UNDO_BLOCKS as u64;
        let undo_blocks = match options.undo_bytes {
            None => {
                let wanted = volumes.first().map_or(0, thousandth).div_ceil(BIG_BLOCK_SIZE);
                wanted.clamp(UNDO_BLOCKS_DEFAULT, limit)
            }
            Some(bytes) => match bytes.div_ceil(BIG_BLOCK_SIZE) {
                blocks if (1..=limit).contains(&blocks) => blocks,
                _ => return Err(FormatError::UndoSize { bytes }),
            },
        };
        let plan =
            Self { volumes, undo_blocks, flavor: Checksum::of_version(version).newest(), options: *options };
        for (index, volume) in plan.volumes.iter().enumerate() {
            let needed = plan.taken(index);
            if volume.blocks < needed {
                let needed = BUFFERS_BEGIN + needed * BIG_BLOCK_SIZE;
                return Err(FormatError::TooSmall { index, bytes: volume.device.limits().bytes(), needed });
            }
        }
        Ok(plan)
    }

    /// Size of the FIFO, in bytes.
    pub fn undo_bytes(&self) -> u64 {
        self.undo_blocks * BIG_BLOCK_SIZE
    }

    /// Bytes of the root volume that freemap and FIFO take.
    pub fn preallocated_bytes(&self) -> u64 {
        self.undo_start() * BIG_BLOCK_SIZE + self.undo_bytes()
    }

    /// Writes it, and makes it durable. `progress` is called after each MiB. May block.
    ///
    /// # Errors
    /// [`FormatError::Device`]; what is on the volumes is no file system then. [`FormatError::NoMemory`] before anything
    /// was written.
    pub fn write(&self, w: &mut dyn Wait, progress: &mut dyn FnMut(Progress)) -> Result<(), FormatError> {
        let headers = (self.volumes.len() * BUFFER_SIZE) as u64;
        let tables: u64 = self.volumes.iter().map(|v| v.tables).sum();
        let total_bytes =
            2 * headers + (1 + tables + self.undo_blocks) * BIG_BLOCK_SIZE + 2 * BUFFER_SIZE as u64;
        let mut memory = Vec::new();
        memory.try_reserve_exact(CHUNK).map_err(|_| FormatError::NoMemory)?;
        memory.resize(CHUNK, 0);
        let state = Progress { done_bytes: 0, total_bytes };
        let mut out = Writer { plan: self, w, progress, state, memory };

        for volume in 0..self.volumes.len() {
            out.write(volume, 0, BUFFER_SIZE as u64, |_, _| ())?;
        }
        out.flush()?;
        self.write_freemap(&mut out)?;
        self.write_fifo(&mut out)?;
        self.write_records(&mut out)?;
        out.flush()?;
        // The root volume's header makes it a file system.
        for volume in (0..self.volumes.len()).rev() {
            out.write(volume, 0, BUFFER_SIZE as u64, |_, buffer| put(buffer, 0, &self.header(volume)))?;
        }
        out.flush()
    }

    /// The big-block of the root volume that the FIFO starts with: layer 1 and its layer 2 lie before it.
    fn undo_start(&self) -> u64 {
        1 + self.volumes.first().map_or(0, |root| root.tables)
    }

    /// The big-block of nodes; that of records follows it.
    fn btree_block(&self) -> u64 {
        self.undo_start() + self.undo_blocks
    }

    /// Big-blocks of a volume that somebody owns; they are the first ones.
    fn taken(&self, volume: usize) -> u64 {
        match volume {
            0 => self.btree_block() + 2,
            n => self.volumes.get(n).map_or(0, |v| v.tables),
        }
    }

    fn node_at(&self) -> Offset {
        Offset::new(Zone::BTREE, 0, self.btree_block() * BIG_BLOCK_SIZE)
    }

    fn meta_at(&self) -> Offset {
        Offset::new(Zone::META, 0, (self.btree_block() + 1) * BIG_BLOCK_SIZE)
    }

    fn write_freemap(&self, out: &mut Writer<'_>) -> Result<(), FormatError> {
        let absent = layer1(0, Offset::UNAVAILABLE, self.flavor);
        out.write(0, BUFFERS_BEGIN, BIG_BLOCK_SIZE, |position, bytes| {
            let first = position / size_of::<Layer1>() as u64;
            let (entries, _) = bytes.as_chunks_mut::<{ size_of::<Layer1>() }>();
            for (slot, entry) in (first..).zip(entries) {
                let (volume, table) = ((slot / LAYER1_PER_VOLUME) as usize, slot % LAYER1_PER_VOLUME);
                let exists = self.volumes.get(volume).is_some_and(|v| table < v.tables);
                let value = if exists { self.layer1_of(volume, table) } else { absent };
                entry.copy_from_slice(value.as_bytes());
            }
        })?;
        for (volume, v) in self.volumes.iter().enumerate() {
            let at = BUFFERS_BEGIN + u64::from(volume == 0) * BIG_BLOCK_SIZE;
            let free = layer2(Zone::FREE, 0, BIG_BLOCK_SIZE, self.flavor);
            let unavailable = layer2(Zone::UNAVAILABLE, BIG_BLOCK_SIZE, 0, self.flavor);
            let taken = self.taken(volume);
            out.write(volume, at, v.tables * BIG_BLOCK_SIZE, |position, bytes| {
                let first = position / size_of::<Layer2>() as u64;
                let (entries, _) = bytes.as_chunks_mut::<{ size_of::<Layer2>() }>();
                for (block, entry) in (first..).zip(entries) {
                    let value = match block {
                        b if b < taken => self.layer2_of_taken(volume, b),
                        b if b < v.blocks => free,
                        _ => unavailable,
                    };
                    entry.copy_from_slice(value.as_bytes());
                }
            })?;
        }
        Ok(())
    }

    fn layer1_of(&self, volume: usize, table: u64) -> Layer1 {
        let blocks = self.volumes.get(volume).map_or(0, |v| v.blocks);
        let (begin, end) = (table * LAYER2_ENTRIES, ((table + 1) * LAYER2_ENTRIES).min(blocks));
        let free = end.saturating_sub(begin.max(self.taken(volume)));
        let place = (u64::from(volume == 0) + table) * BIG_BLOCK_SIZE;
        layer1(free, Offset::new(Zone::RAW_BUFFER, volume as u8, place), self.flavor)
    }

    fn layer2_of_taken(&self, volume: usize, block: u64) -> Layer2 {
        let partly = |zone, used| layer2(zone, used, BIG_BLOCK_SIZE - used, self.flavor);
        let btree = self.btree_block();
        match block {
            b if volume != 0 || b < self.undo_start() => partly(Zone::FREEMAP, BIG_BLOCK_SIZE),
            b if b < btree => partly(Zone::UNDO, BIG_BLOCK_SIZE),
            b if b == btree => partly(Zone::BTREE, NODE_SIZE as u64),
            _ => partly(Zone::META, META_BYTES),
        }
    }

    /// Fills the FIFO with a numbered record for each sector.
    fn write_fifo(&self, out: &mut Writer<'_>) -> Result<(), FormatError> {
        let at = BUFFERS_BEGIN + self.undo_start() * BIG_BLOCK_SIZE;
        let (size, record_type) = ((SECTOR as u32).into(), TYPE_DUMMY.into());
        let mut sector = [0; SECTOR as usize];
        let tail = FifoTail { signature: TAIL_SIGNATURE.into(), record_type, size };
        put(&mut sector, SECTOR as usize - size_of::<FifoTail>(), &tail);
        let body_crc = self.flavor.of(sector.get(size_of::<FifoHead>()..).unwrap_or_default());
        out.write(0, at, self.undo_bytes(), |position, bytes| {
            let (sectors, _) = bytes.as_chunks_mut::<{ SECTOR as usize }>();
            for (seq, out) in (position / SECTOR..).zip(sectors) {
                let seq = (seq as u32).into();
                let mut head =
                    FifoHead { signature: HEAD_SIGNATURE.into(), record_type, size, seq, crc: 0.into() };
                head.crc = (self.flavor.of(covered(&head, 12)) ^ body_crc).into();
                *out = sector;
                put(out, 0, &head);
            }
        })
    }

    /// The root directory, the root pseudo file system, and the leaf that holds both.
    fn write_records(&self, out: &mut Writer<'_>) -> Result<(), FormatError> {
        let options = &self.options;
        let mut inode = InodeData::new_zeroed();
        inode.version = 1.into();
        inode.mode = 0o755.into();
        inode.ctime = options.now_us.into();
        inode.mtime = options.now_us.into();
        inode.atime = options.now_us.into();
        inode.obj_type = ObjType::DIRECTORY.0;
        inode.cap_flags = match options.version {
            1 => 0,
            2..=5 => CAP_LOCAL_ENTRIES,
            _ => CAP_LOCAL_ENTRIES | CAP_HASH_ALG1,
        };
        inode.nlinks = 1.into();
        let mut pfs = PfsData::new_zeroed();
        pfs.sync_low_tid = 1.into();
        pfs.shared_uuid = options.fsid;
        pfs.unique_uuid = options.fsid;
        put(&mut pfs.label, 0, options.label);

        let record = |localization: u32, rec_type: RecType, at: Offset, len: usize, crc: u32| {
            let mut base = BaseElement::new_zeroed();
            base.obj_id = OBJ_ROOT.into();
            base.create_tid = FIRST_TID.into();
            base.rec_type = rec_type.0.into();
            base.obj_type = ObjType::DIRECTORY.0;
            base.btype = TYPE_RECORD;
            base.localization = localization.into();
            let tail = LeafTail {
                create_ts: ((options.now_us / 1_000_000) as u32).into(),
                delete_ts: 0.into(),
                data_offset: at.0.into(),
                data_len: (len as i32).into(),
                data_crc: crc.into(),
            };
            Element::leaf(base, tail)
        };
        let inode_at = self.meta_at();
        let pfs_at = Offset(inode_at.0 + size_of::<InodeData>() as u64);
        let inode_crc = self.flavor.of(covered(&inode, InodeData::CRC_LEN));
        let mut node = Node::new_zeroed();
        node.node_type = TYPE_LEAF;
        let records = [
            record(LOCALIZE_INODE, RecType::INODE, inode_at, size_of::<InodeData>(), inode_crc),
            record(LOCALIZE_MISC, RecType::PFS, pfs_at, size_of::<PfsData>(), self.flavor.of(pfs.as_bytes())),
        ];
        node.count = (records.len() as i32).into();
        for (slot, record) in node.elements.iter_mut().zip(records) {
            *slot = record;
        }
        node.crc = self.flavor.of(node.crc_bytes()).into();

        let device_byte = |at: Offset| BUFFERS_BEGIN + at.byte();
        let buffer = BUFFER_SIZE as u64;
        out.write(0, device_byte(self.node_at()), buffer, |_, bytes| put(bytes, 0, &node))?;
        out.write(0, device_byte(inode_at), buffer, |_, bytes| {
            put(bytes, 0, &inode);
            put(bytes, size_of::<InodeData>(), &pfs);
        })
    }

    fn header(&self, number: usize) -> VolumeHeader {
        let mut header = VolumeHeader::new_zeroed();
        header.vol_signature = SIGNATURE.into();
        header.vol_bot_beg = (HEADER_AREA as i64).into();
        header.vol_mem_beg = ((HEADER_AREA + BOOT_AREA) as i64).into();
        header.vol_buf_beg = (BUFFERS_BEGIN as i64).into();
        header.vol_buf_end = self.volumes.get(number).map_or(0, |v| v.end as i64).into();
        header.vol_fsid = self.options.fsid;
        header.vol_fstype = FSTYPE;
        put(&mut header.vol_label, 0, self.options.label);
        header.vol_no = (number as i32).into();
        header.vol_count = (self.volumes.len() as i32).into();
        header.vol_version = self.options.version.into();
        if number == 0 {
            let free: u64 = (0..).zip(&self.volumes).map(|(n, v)| v.blocks - self.taken(n)).sum();
            // Those of nodes and records count as usable.
            header.vol0_stat_bigblocks = (free as i64 + 2).into();
            header.vol0_stat_freebigblocks = (free as i64).into();
            header.vol0_stat_inodes = 1.into();
            header.vol0_btree_root = self.node_at().0.into();
            header.vol0_next_tid = (FIRST_TID - 1).into();
            for (zone, map) in (0..).map(Zone).zip(&mut header.vol0_blockmap) {
                *map = self.blockmap(zone);
            }
            let used = self.undo_blocks as usize;
            for (block, slot) in (self.undo_start()..).zip(&mut header.vol0_undo_array) {
                *slot = Offset::new(Zone::RAW_BUFFER, 0, block * BIG_BLOCK_SIZE).0.into();
            }
            header.vol0_undo_array.iter_mut().skip(used).for_each(|s| *s = Offset::UNAVAILABLE.0.into());
        }
        let (before, after) = header.crc_bytes();
        header.vol_crc = (self.flavor.of(before) ^ self.flavor.of(after)).into();
        header
    }

    fn blockmap(&self, zone: Zone) -> BlockmapEntry {
        let mut entry = BlockmapEntry::new_zeroed();
        let base = Offset::new(zone, 0, 0).0;
        let last = (1 << 60) - 1;
        let (phys, first, next, alloc) = match zone {
            Zone::UNDO => (Offset::UNAVAILABLE.0, base, base, base + self.undo_bytes()),
            Zone::FREEMAP => {
                let raw = Offset::new(Zone::RAW_BUFFER, 0, 0).0;
                (raw, 0, raw, raw | last)
            }
            Zone::BTREE => (0, base, self.node_at().0 + NODE_SIZE as u64, base | last),
            Zone::META => (0, base, self.meta_at().0 + META_BYTES, base | last),
            Zone(8..) => (0, base, base, base | last),
            _ => return entry,
        };
        entry.phys_offset = phys.into();
        entry.first_offset = first.into();
        entry.next_offset = next.into();
        entry.alloc_offset = alloc.into();
        entry.entry_crc = self.flavor.of(covered(&entry, BlockmapEntry::CRC_LEN)).into();
        entry
    }
}

/// The header that a volume most likely had, as far as it says where things lie; without a tree.
pub(crate) fn likely_header(number: usize, version: u32, device_bytes: u64) -> VolumeHeader {
    let mut header = VolumeHeader::new_zeroed();
    header.vol_signature = SIGNATURE.into();
    header.vol_buf_beg = (BUFFERS_BEGIN as i64).into();
    header.vol_buf_end = i64::try_from(device_bytes).unwrap_or(i64::MAX).into();
    header.vol_no = (number as i32).into();
    header.vol_version = version.into();
    // The table of layer 1 is the first big-block.
    if let Some(map) = header.vol0_blockmap.get_mut(usize::from(Zone::FREEMAP.0)) {
        map.phys_offset = Offset::new(Zone::RAW_BUFFER, 0, 0).0.into();
    }
    header
}

impl Volume {
    fn new(index: usize, device: &Arc<dyn BlockDevice>) -> Result<Self, FormatError> {
        let limits = device.limits();
        let (bytes, block_bytes) = (limits.bytes(), limits.block_bytes);
        if block_bytes == 0 || !(BUFFER_SIZE as u32).is_multiple_of(block_bytes) {
            return Err(FormatError::BlockSize { index, block_bytes });
        }
        if limits.access == Access::ReadOnly {
            return Err(FormatError::ReadOnly { index });
        }
        let end = bytes - bytes % BUFFER_SIZE as u64;
        let buffers = end.saturating_sub(BUFFERS_BEGIN);
        if buffers > LAYER1_PER_VOLUME * LAYER2_ENTRIES * BIG_BLOCK_SIZE {
            return Err(FormatError::TooLarge { index, bytes });
        }
        let blocks = buffers / BIG_BLOCK_SIZE;
        // A volume holds its own tables at least.
        Ok(Self { device: device.clone(), end, blocks, tables: blocks.div_ceil(LAYER2_ENTRIES).max(1) })
    }
}

/// Writes what is made piece by piece, and counts it.
struct Writer<'p> {
    plan: &'p Plan<'p>,
    w: &'p mut dyn Wait,
    progress: &'p mut dyn FnMut(Progress),
    state: Progress,
    memory: Vec<u8>,
}

impl Writer<'_> {
    /// Writes `len` bytes from device byte `at` on. `fill` gets where in this range it is, and zeros to overwrite.
    fn write(
        &mut self,
        volume: usize,
        at: u64,
        len: u64,
        mut fill: impl FnMut(u64, &mut [u8]),
    ) -> Result<(), FormatError> {
        let Some(target) = self.plan.volumes.get(volume) else { return Ok(()) };
        for position in (0..len).step_by(CHUNK) {
            let bytes = (len - position).min(CHUNK as u64) as usize;
            let piece = self.memory.get_mut(..bytes).unwrap_or_default();
            piece.fill(0);
            fill(position, piece);
            dfly_bio::write_at(&*target.device, self.w, at + position, piece)
                .map_err(|error| FormatError::Device { index: volume, error })?;
            self.state.done_bytes += bytes as u64;
            (self.progress)(self.state);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), FormatError> {
        for (index, volume) in self.plan.volumes.iter().enumerate() {
            dfly_bio::flush(&*volume.device, self.w).map_err(|error| FormatError::Device { index, error })?;
        }
        Ok(())
    }
}

fn layer1(blocks_free: u64, table: Offset, flavor: Flavor) -> Layer1 {
    let mut entry = Layer1::new_zeroed();
    entry.blocks_free = blocks_free.into();
    entry.phys_offset = table.0.into();
    entry.layer1_crc = flavor.of(covered(&entry, Layer1::CRC_LEN)).into();
    entry
}

fn layer2(zone: Zone, append: u64, free: u64, flavor: Flavor) -> Layer2 {
    let mut entry = Layer2::new_zeroed();
    entry.zone = zone.0;
    entry.append_off = (append as u32).into();
    entry.bytes_free = (free as i32).into();
    entry.entry_crc = flavor.of(covered(&entry, Layer2::CRC_LEN)).into();
    entry
}

/// The first `len` bytes of a structure: what its checksum is over.
fn covered<T: IntoBytes + Immutable>(value: &T, len: usize) -> &[u8] {
    value.as_bytes().get(..len).unwrap_or_default()
}

/// Puts a structure into a buffer that has room for it.
fn put<T: IntoBytes + Immutable + ?Sized>(buffer: &mut [u8], at: usize, value: &T) {
    let bytes = value.as_bytes();
    if let Some(to) = buffer.get_mut(at..).and_then(|b| b.get_mut(..bytes.len())) {
        to.copy_from_slice(bytes);
    }
}
