//! What a device says that it is, and the commands that it takes.

use dfly_bio::{Access, BioJob, Failure, Fua, Limits, Medium, Op, RangeLimits, WriteCache};

use crate::slots::Class;
use crate::spec::{Capacity, Cdb, Command, Identify, RangeEntry, Taskfile};
use crate::{DiskInfo, DiskKind, Unusable};

/// A device that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) info: DiskInfo,
    lba48: bool,
    pub(crate) flush: Command,
    fua: bool,
    trim: bool,
    solid_state: bool,
    /// Page 10h tells which queued command failed.
    pub(crate) logs: bool,
    pub(crate) device_initiated_power: bool,
}

/// Blocks of a READ (10).
const PACKET_BLOCKS: u64 = 0xffff;

impl Device {
    /// A disk.
    pub(crate) fn disk(id: &Identify, slots: u8, sncq: bool) -> Result<Self, Unusable> {
        let (blocks, block_shift) = id.geometry()?;
        let depth = if sncq { id.queue_depth().map(|depth| depth.min(slots)) } else { None };
        let info = DiskInfo {
            kind: DiskKind::Disk,
            serial: id.serial(),
            model: id.model(),
            firmware: id.firmware(),
            wwn: id.wwn(),
            blocks,
            block_shift,
            physical_shift: id.logical_sector().per_physical_shift,
            queue_depth: depth.unwrap_or(1),
            queueing: depth.is_some(),
            write_cache: if id.write_cache_is_on() { WriteCache::Volatile } else { WriteCache::None },
            smart: id.has_smart(),
        };
        let wide = id.has_lba48() && (id.has_flush_ext() || !id.has_flush());
        Ok(Self {
            info,
            lba48: id.has_lba48(),
            flush: if wide { Command::FLUSH_CACHE_EXT } else { Command::FLUSH_CACHE },
            fua: id.has_lba48() && id.has_fua(),
            trim: id.has_trim() && id.has_lba48(),
            solid_state: id.is_solid_state(),
            logs: id.has_logs(),
            device_initiated_power: id.has_device_initiated_power(),
        })
    }

    /// A reader of discs; what is in it is found out later.
    pub(crate) fn reader(id: &Identify) -> Self {
        let info = DiskInfo {
            kind: DiskKind::Disc,
            serial: id.serial(),
            model: id.model(),
            firmware: id.firmware(),
            wwn: id.wwn(),
            blocks: 0,
            block_shift: 11,
            physical_shift: 0,
            queue_depth: 1,
            queueing: false,
            write_cache: WriteCache::None,
            smart: false,
        };
        Self {
            info,
            lba48: false,
            flush: Command::FLUSH_CACHE,
            fua: false,
            trim: false,
            solid_state: false,
            logs: false,
            device_initiated_power: false,
        }
    }

    /// The reader with this disc in it.
    pub(crate) fn with_disc(mut self, capacity: &Capacity) -> Result<Self, Unusable> {
        let bytes = capacity.block_bytes.get();
        if !bytes.is_power_of_two() || !(512..=65536).contains(&bytes) {
            return Err(Unusable::BlockBytes { bytes });
        }
        self.info.blocks = u64::from(capacity.last_lba.get()) + 1;
        self.info.block_shift = bytes.trailing_zeros() as u8;
        Ok(self)
    }

    /// Whether it is the same device, with the same disc in it.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let (a, b) = (&self.info, &other.info);
        (a.kind, a.serial, a.model, a.wwn) == (b.kind, b.serial, b.model, b.wwn)
            && (a.blocks, a.block_shift) == (b.blocks, b.block_shift)
    }

    pub(crate) const fn is_packet(&self) -> bool {
        matches!(self.info.kind, DiskKind::Disc)
    }

    /// What one request to it may be.
    pub(crate) fn limits(&self, shape: super::port::Shape) -> Limits {
        let DiskInfo { blocks, block_shift, physical_shift, .. } = self.info;
        let block = 1_u64 << block_shift;
        let mut limits = Limits::new(1 << block_shift, blocks);
        let longest = match self.info.kind {
            DiskKind::Disc => PACKET_BLOCKS,
            DiskKind::Disk if self.lba48 || self.info.queueing => 65536,
            DiskKind::Disk => 256,
        };
        limits.max_bytes = u64::from(shape.max_bytes).min(longest << block_shift) / block * block;
        limits.max_segments = shape.max_segments;
        limits.mem_align = 2;
        limits.optimal_bytes =
            limits.block_bytes.checked_shl(physical_shift.into()).unwrap_or(limits.block_bytes);
        limits.write_cache = self.info.write_cache;
        limits.fua = if self.fua || self.info.queueing { Fua::Native } else { Fua::Unsupported };
        limits.medium = if self.solid_state { Medium::SolidState } else { Medium::Rotational };
        if self.is_packet() {
            limits.access = Access::ReadOnly;
        }
        limits.discard = self.trim.then(|| RangeLimits {
            granularity_bytes: limits.optimal_bytes,
            max_bytes: (RangeEntry::MAX_BLOCKS * RangeEntry::IN_BLOCK as u64) << block_shift,
        });
        limits
    }

    /// Which class a request's command is of.
    pub(crate) fn class_of(&self, job: &BioJob) -> Class {
        if self.info.queueing && job.op().has_data() { Class::Queued } else { Class::Single }
    }

    /// The command of a request in slot `tag`; for a packet device, its packet too.
    pub(crate) fn command(&self, job: &BioJob, tag: u8) -> Result<(Taskfile, Option<[u8; 16]>), Failure> {
        let (lba, blocks) = (job.offset() >> self.info.block_shift, job.len() >> self.info.block_shift);
        // Within the limits.
        let count = blocks as u32;
        let taskfile = match (job.op(), self.info.queueing) {
            (Op::Read, _) if self.is_packet() => {
                let first = u32::try_from(lba).map_err(|_| Failure::OutOfRange)?;
                return Ok((Taskfile::packet(), Some(Cdb::read(first, count as u16).0)));
            }
            _ if self.is_packet() => return Err(Failure::WriteProtected),
            (Op::Read, true) => Taskfile::queued(Command::READ_FPDMA_QUEUED, lba, count, tag),
            (Op::Write, true) if job.is_fua() => {
                Taskfile::queued(Command::WRITE_FPDMA_QUEUED, lba, count, tag).with_fua()
            }
            (Op::Write, true) => Taskfile::queued(Command::WRITE_FPDMA_QUEUED, lba, count, tag),
            (Op::Read, false) if self.lba48 => Taskfile::wide(Command::READ_DMA_EXT, lba, count),
            (Op::Read, false) => Taskfile::narrow(Command::READ_DMA, lba, count),
            (Op::Write, false) if job.is_fua() && self.fua => {
                Taskfile::wide(Command::WRITE_DMA_FUA_EXT, lba, count)
            }
            (Op::Write, false) if job.is_fua() => return Err(Failure::Unsupported),
            (Op::Write, false) if self.lba48 => Taskfile::wide(Command::WRITE_DMA_EXT, lba, count),
            (Op::Write, false) => Taskfile::narrow(Command::WRITE_DMA, lba, count),
            (Op::Flush, _) => Taskfile::plain(self.flush),
            (Op::Discard, _) => Taskfile::trim(1),
            _ => return Err(Failure::Unsupported),
        };
        Ok((taskfile, None))
    }
}
