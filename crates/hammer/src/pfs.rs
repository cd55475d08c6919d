//! Pseudo file systems: each a root directory and a number space of its own, and the unit of mirroring. Also what is
//! kept for each of them: snapshots and configuration text.

use alloc::vec::Vec;

use dfly_hal::Wait;

use crate::btree::{self, Scan};
use crate::error::Error;
use crate::media::Media;
use crate::ondisk::node::{Key, Tid};
use crate::ondisk::record::{
    LOCALIZE_INODE, LOCALIZE_MISC, OBJ_ROOT, PFS_DELETED, PFS_SLAVE, PfsData, RecType, SnapshotData,
};
use crate::record::Record;

/// A pseudo file system.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Pfs {
    /// Its number; 0 is the file system's own root.
    pub id: u16,
    /// What the disk says of it.
    pub data: PfsData,
}

impl Pfs {
    /// Whether only mirroring writes to it. A slave is seen as of [`Self::synced`].
    pub fn is_slave(&self) -> bool {
        self.data.mirror_flags.get() & PFS_SLAVE != 0
    }

    /// Whether it was destroyed: the description stays as a tombstone.
    pub fn is_deleted(&self) -> bool {
        self.data.mirror_flags.get() & PFS_DELETED != 0
    }

    /// Up to which transaction a slave is complete.
    pub fn synced(&self) -> Tid {
        Tid(self.data.sync_end_tid.get())
    }

    /// The label up to its first NUL.
    pub fn label(&self) -> &[u8] {
        crate::ondisk::volume::until_nul(&self.data.label)
    }
}

/// All descriptions live in PFS 0, keyed by number.
fn key(id: u16) -> Key {
    Key {
        localization: LOCALIZE_MISC,
        obj_id: OBJ_ROOT,
        rec_type: RecType::PFS.0,
        key: i64::from(id) << 16,
        create_tid: Tid::ZERO,
    }
}

/// The description of pseudo file system `id`, if there is one. May block.
pub(crate) fn load(media: &Media, w: &mut dyn Wait, id: u16) -> Result<Option<Pfs>, Error> {
    let Some(e) = btree::lookup(media, w, &key(id), Tid::MAX)? else { return Ok(None) };
    Ok(Some(Pfs { id, data: *Record::load(media, w, &e)?.view()? }))
}

/// All pseudo file systems, in order, tombstones included. May block.
pub(crate) fn list(media: &Media, w: &mut dyn Wait) -> Result<Vec<Pfs>, Error> {
    let mut all = Vec::new();
    let mut scan = Scan::new(media, w, &key(0), &key(u16::MAX), Tid::MAX)?;
    while let Some(e) = scan.next(w)? {
        if let Ok(id) = u16::try_from(e.base.key.get() >> 16) {
            all.try_reserve(1).map_err(|_| Error::NoMemory)?;
            all.push(Pfs { id, data: *Record::load(media, w, &e)?.view()? });
        }
    }
    Ok(all)
}

/// A named transaction of a pseudo file system.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// What the disk says of it.
    pub data: SnapshotData,
}

impl Snapshot {
    /// The view that it names.
    pub fn tid(&self) -> Tid {
        Tid(self.data.tid.get())
    }

    /// The label up to its first NUL.
    pub fn label(&self) -> &[u8] {
        crate::ondisk::volume::until_nul(&self.data.label)
    }
}

fn root_key(pfs: u16, rec_type: RecType, key: i64) -> Key {
    Key {
        localization: u32::from(pfs) << 16 | LOCALIZE_INODE,
        obj_id: OBJ_ROOT,
        rec_type: rec_type.0,
        key,
        create_tid: Tid::ZERO,
    }
}

/// The snapshots of a pseudo file system, oldest first. May block.
pub(crate) fn snapshots(media: &Media, w: &mut dyn Wait, pfs: u16) -> Result<Vec<Snapshot>, Error> {
    let range = [i64::MIN, i64::MAX].map(|k| root_key(pfs, RecType::SNAPSHOT, k));
    let mut all = Vec::new();
    let mut scan = Scan::new(media, w, &range[0], &range[1], Tid::MAX)?;
    while let Some(e) = scan.next(w)? {
        all.try_reserve(1).map_err(|_| Error::NoMemory)?;
        all.push(Snapshot { data: *Record::load(media, w, &e)?.view()? });
    }
    // The tree sorts their numbers as signed ones.
    all.sort_unstable_by_key(Snapshot::tid);
    Ok(all)
}

/// The configuration text of a pseudo file system, if it has one. May block.
pub(crate) fn config(media: &Media, w: &mut dyn Wait, pfs: u16) -> Result<Option<Vec<u8>>, Error> {
    let Some(e) = btree::lookup(media, w, &root_key(pfs, RecType::CONFIG, 0), Tid::MAX)? else {
        return Ok(None);
    };
    let record = Record::load(media, w, &e)?;
    Ok(Some(crate::ondisk::volume::until_nul(record.bytes()?).to_vec()))
}
