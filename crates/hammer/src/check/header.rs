//! Volume headers: what can be said of them without looking further.

use zerocopy::IntoBytes;

use super::{Finding, Kind, Log};
use crate::media::Media;
use crate::ondisk::volume::{BlockmapEntry, FSTYPE, UNDO_BLOCKS, VolumeHeader};
use crate::ondisk::{BIG_BLOCK_SIZE, Offset, Zone};

/// The transaction that the header of a file system names that was never written to.
const FRESH_TID: u64 = 0x1_0000_0000;

fn at(header: &VolumeHeader, byte: usize) -> Offset {
    Offset::new(Zone::RAW_VOLUME, header.vol_no.get() as u8, byte as u64)
}

/// Checksums of the headers, which are about the bytes on the disk: UNDO does not restore them. A crash in the middle of
/// writing a header, or of restoring one, leaves it without the right one.
pub(super) fn as_they_lie(media: &Media, log: &mut Log<'_>) {
    for header in media.volumes().map(|v| &v.header) {
        let stored = header.vol_crc.get();
        let (before, after) = header.crc_bytes();
        let right = media.checksum().matching(stored, |f| f.of(before) ^ f.of(after)).is_some();
        // `newfs_hammer` leaves it zero, and only headers that are written again ever get one.
        let never_set = stored == 0 && (header.vol_no.get() != 0 || is_fresh(header));
        if !right && !never_set {
            let flavor = media.checksum().newest();
            let expected = flavor.of(before) ^ flavor.of(after);
            let crashed = log.report.recovery.crashed;
            let kind = if crashed { Kind::HeaderTorn } else { Kind::HeaderChecksum };
            log.found(Finding::new(kind, at(header, 156)).values(stored.into(), expected.into()));
        }
    }
}

/// Whether nobody but `newfs_hammer` wrote the header.
fn is_fresh(header: &VolumeHeader) -> bool {
    header.vol_crc.get() == 0 && header.vol0_next_tid.get() == FRESH_TID
}

/// Fields. Those that only a mount looks at have been checked when the volumes were opened.
pub(super) fn recovered(media: &Media, log: &mut Log<'_>) {
    let root = media.header();
    for volume in media.volumes() {
        let header = &volume.header;
        let mut field = |byte: usize, found: u64, expected: u64| {
            if found != expected {
                log.found(Finding::new(Kind::HeaderField, at(header, byte)).values(found, expected));
            }
        };
        let offset = core::mem::offset_of!(VolumeHeader, vol_fstype);
        field(offset, u64::from(header.vol_fstype != FSTYPE), 0);
        field(152, header.vol_version.get().into(), root.vol_version.get().into());
        field(148, header.vol_count.get() as u64, root.vol_count.get() as u64);
        let label = core::mem::offset_of!(VolumeHeader, vol_label);
        field(label, u64::from(!header.vol_label.contains(&0)), 0);
        let areas = [header.vol_bot_beg.get(), header.vol_mem_beg.get(), header.vol_buf_beg.get()];
        field(8, u64::from(!areas.is_sorted() || areas.iter().any(|a| *a < 0)), 0);
        if header.vol_no.get() != 0 {
            let own = core::mem::offset_of!(VolumeHeader, vol0_stat_bigblocks);
            let rest = header.as_bytes().get(own..).unwrap_or_default();
            field(own, rest.iter().filter(|b| **b != 0).count() as u64, 0);
        }
    }
    blockmap(media, root, log);
}

fn blockmap(media: &Media, root: &VolumeHeader, log: &mut Log<'_>) {
    let begin = core::mem::offset_of!(VolumeHeader, vol0_blockmap);
    let lying = media.volume(0).is_some_and(|v| is_fresh(&v.header));
    for (index, map) in root.vol0_blockmap.iter().enumerate() {
        let zone = Zone(index as u8);
        let place = at(root, begin + index * size_of::<BlockmapEntry>());
        let (stored, covered) = (map.entry_crc.get(), map.as_bytes().get(..BlockmapEntry::CRC_LEN));
        let unused = matches!(index, 0..=2 | 5..=7) && map.as_bytes().iter().all(|b| *b == 0);
        // `newfs_hammer` allocates the first node and records after it has summed up the entries. The FIFO's pointers
        // were set by recovery.
        let stale = lying && matches!(zone, Zone::BTREE | Zone::META);
        let moved = zone == Zone::UNDO;
        if !unused
            && !stale
            && !moved
            && media.checksum().check(stored, covered.unwrap_or_default()).is_none()
        {
            log.found(Finding::new(Kind::BlockmapChecksum, place));
        }
        let next = Offset(map.next_offset.get());
        let fits = match zone {
            Zone(8..) => next.0 >> 60 == index as u64 || next.0 == (index as u64 + 1) << 60,
            Zone::UNDO => next.zone() == Zone::UNDO && next.long() <= Offset(map.alloc_offset.get()).long(),
            _ => true,
        };
        if !fits {
            log.found(Finding::new(Kind::BlockmapPosition, place).values(next.0, (index as u64) << 60));
        }
    }
    let fifo = Offset(root.vol0_blockmap.get(3).map_or(0, |m| m.alloc_offset.get())).long();
    let used = (fifo / BIG_BLOCK_SIZE) as usize;
    let array = core::mem::offset_of!(VolumeHeader, vol0_undo_array);
    for (index, slot) in root.vol0_undo_array.iter().enumerate().take(used.min(UNDO_BLOCKS)) {
        let block = Offset(slot.get());
        let twice = root.vol0_undo_array.iter().take(index).any(|o| o.get() == block.0);
        let fits = block.zone() == Zone::RAW_BUFFER
            && block.in_big_block() == 0
            && super::is_readable(media, block)
            && !twice;
        if !fits {
            log.found(Finding::new(Kind::FifoBlock, at(root, array + 8 * index)).values(block.0, 0));
        }
    }
}
