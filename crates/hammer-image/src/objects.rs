//! The builder: a file system of records in memory, changed by operations that leave history as the original's do.

mod finish;
mod store;

use std::collections::BTreeMap;

use dfly_hammer::ondisk::node::{Key, Tid};
use dfly_hammer::ondisk::record::{
    FIX_KEY_SYMLINK, InodeData, LOCALIZE_INODE, LOCALIZE_MISC, OBJ_ROOT, ObjType, PFS_SLAVE, PfsData,
    RecType, SYMLINK_INLINE, SnapshotData,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use self::store::{entry_key, hash, pfs_key, pfs_uuid, relocated};
use crate::content::{Content, block_at};
use crate::layout::Format;
use crate::record::{Data, Record};
use crate::tree::Shape;

/// The transaction that a fresh file system's own records carry.
const FIRST_TID: u64 = 0x1_0000_0001;
/// Transactions of a normal mount are so far apart.
const TID_STEP: u64 = 0x20;
/// Length of a CONFIG record.
const CONFIG_LEN: usize = 1024;

/// A handle of an object in a [`Builder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Object {
    /// Its pseudo file system.
    pub pfs: u16,
    /// Its id.
    pub id: i64,
}

/// Describes a file system and its history, and writes it as an [`Image`](crate::Image).
///
/// Operations belong to the current transaction; [`Self::commit`] ends it. What one transaction makes and unmakes
/// leaves no trace, everything else leaves history. The first operation that cannot be done is reported by
/// [`Self::finish`]; those behind it do nothing.
#[derive(Clone)]
pub struct Builder {
    format: Format,
    shape: Shape,
    records: BTreeMap<Key, Record>,
    tid: Tid,
    now_us: u64,
    next_object: i64,
    old_crc_before: Tid,
    dedup: bool,
    failed: Option<String>,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new(Format::default())
    }
}

impl Builder {
    /// A file system with an empty root directory.
    pub fn new(format: Format) -> Self {
        let mut fs = Self {
            shape: Shape::default(),
            records: BTreeMap::new(),
            tid: Tid(FIRST_TID),
            now_us: 1_600_000_000_000_000,
            next_object: 0x1_0000_0400,
            old_crc_before: Tid::ZERO,
            dedup: false,
            failed: None,
            format,
        };
        fs.make_root(0);
        let (fsid, label) = (fs.format.fsid, fs.format.label.clone());
        fs.put_pfs(0, label.as_bytes(), |pfs| {
            pfs.sync_low_tid = 1.into();
            (pfs.shared_uuid, pfs.unique_uuid) = (fsid, fsid);
        });
        fs.tid = Tid(0x1_0000_8020);
        fs
    }

    /// How the tree's nodes are filled.
    pub fn shape(&mut self, shape: Shape) -> &mut Self {
        self.shape = shape;
        self
    }

    /// Equal data of files is stored once, as after `hammer dedup`.
    pub fn dedup(&mut self) -> &mut Self {
        self.dedup = true;
        self
    }

    /// Data of records that were created before `tid` gets the checksum of old versions, as after an upgrade to 7.
    pub fn old_crc_before(&mut self, tid: Tid) -> &mut Self {
        self.old_crc_before = tid;
        self
    }

    /// The root directory of pseudo file system 0.
    pub fn root(&self) -> Object {
        Object { pfs: 0, id: OBJ_ROOT }
    }

    /// The current transaction.
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Ends the current transaction and returns its id: a view as of it shows all that was done up to here. The next
    /// transaction comes a second later.
    pub fn commit(&mut self) -> Tid {
        let done = self.tid;
        self.tid = Tid(done.0 + TID_STEP);
        self.now_us += 1_000_000;
        done
    }

    /// Lets the current transaction have this id. Operations go wrong if ids do not grow.
    pub fn set_tid(&mut self, tid: Tid) -> &mut Self {
        self.tid = tid;
        self
    }

    /// Sets the clock, in microseconds since the epoch.
    pub fn set_time(&mut self, now_us: u64) -> &mut Self {
        self.now_us = now_us;
        self
    }

    /// Makes a directory, mode 0755.
    pub fn directory(&mut self, parent: Object, name: impl AsRef<[u8]>) -> Object {
        let cap_flags = self.directory_flags();
        self.make(parent, name.as_ref(), ObjType::DIRECTORY, |inode| {
            inode.mode = 0o755.into();
            inode.cap_flags = cap_flags;
        })
    }

    /// Makes a regular file, mode 0644.
    pub fn file(&mut self, parent: Object, name: impl AsRef<[u8]>, content: Content) -> Object {
        let size = content.size();
        let file = self.make(parent, name.as_ref(), ObjType::REGULAR, |inode| inode.size = size.into());
        self.put_blocks(file, content.blocks());
        file
    }

    /// Makes a symbolic link, mode 0777.
    pub fn symlink(&mut self, parent: Object, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Object {
        let target = target.as_ref();
        let link = self.make(parent, name.as_ref(), ObjType::SYMLINK, |inode| {
            inode.mode = 0o777.into();
            inode.size = (target.len() as u64).into();
            if target.len() <= SYMLINK_INLINE {
                inode.symlink[..target.len()].copy_from_slice(target);
            }
        });
        if target.len() > SYMLINK_INLINE {
            self.put(
                link.key(LOCALIZE_MISC, RecType::FIX, FIX_KEY_SYMLINK),
                ObjType::SYMLINK,
                Data::bytes(target),
            );
        }
        link
    }

    /// Makes a named pipe, a socket or a device with its major and minor number.
    pub fn special(
        &mut self,
        parent: Object,
        name: impl AsRef<[u8]>,
        obj_type: ObjType,
        (major, minor): (u32, u32),
    ) -> Object {
        self.make(parent, name.as_ref(), obj_type, |inode| {
            inode.rmajor = major.into();
            inode.rminor = minor.into();
        })
    }

    /// Gives an object one more name.
    pub fn link(&mut self, parent: Object, name: impl AsRef<[u8]>, object: Object) -> &mut Self {
        let ctime = self.now_us;
        self.inode(object, |inode| {
            inode.nlinks += 1;
            inode.ctime = ctime.into();
        });
        self.put_name(parent, name.as_ref(), object)
    }

    /// Takes a name away; the object goes with its last name.
    pub fn unlink(&mut self, parent: Object, name: impl AsRef<[u8]>) -> &mut Self {
        let name = name.as_ref();
        let Some((key, object)) = self.find_name(parent, name) else {
            return self.fail(parent, name, "no such name");
        };
        let Some(inode) = self.live_inode(object) else { return self.fail(parent, name, "no inode") };
        if inode.obj_type == ObjType::DIRECTORY.0 && self.entries(object).next().is_some() {
            return self.fail(parent, name, "directory not empty");
        }
        self.delete(key);
        if inode.nlinks.get() > 1 {
            let ctime = self.now_us;
            return self.inode(object, |inode| {
                inode.nlinks -= 1;
                inode.ctime = ctime.into();
            });
        }
        self.live_keys(object, |_| true).into_iter().for_each(|key| self.delete(key));
        self
    }

    /// Moves a name; what it replaces is unlinked.
    pub fn rename(
        &mut self,
        (from, name): (Object, impl AsRef<[u8]>),
        (to, new_name): (Object, impl AsRef<[u8]>),
    ) -> &mut Self {
        let (name, new_name) = (name.as_ref(), new_name.as_ref());
        let Some((key, object)) = self.find_name(from, name) else {
            return self.fail(from, name, "no such name");
        };
        if self.find_name(to, new_name).is_some() {
            self.unlink(to, new_name);
        }
        self.delete(key);
        let ctime = self.now_us;
        self.inode(object, |inode| {
            inode.parent_obj_id = to.id.into();
            inode.ctime = ctime.into();
        });
        self.put_name(to, new_name, object)
    }

    /// Writes to a file, within or behind its end.
    pub fn write(&mut self, file: Object, offset: u64, bytes: &[u8]) -> &mut Self {
        let size = self.size(file).max(offset + bytes.len() as u64);
        self.resize(file, size);
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let block = block_at(at, size);
            let n = ((block.end - at) as usize).min(bytes.len() - done);
            let mut data = self.block_bytes(file, block.clone());
            let within = (at - block.start) as usize;
            data[within..within + n].copy_from_slice(&bytes[done..done + n]);
            self.put_block(file, block.end, Data::bytes(data));
            done += n;
        }
        self.touch_file(file, size)
    }

    /// Cuts a file off or lengthens it by a hole.
    pub fn truncate(&mut self, file: Object, size: u64) -> &mut Self {
        self.resize(file, size);
        self.touch_file(file, size)
    }

    /// Replaces all that a file holds.
    pub fn set_content(&mut self, file: Object, content: Content) -> &mut Self {
        for key in self.live_keys(file, |key| key.rec_type == RecType::DATA.0) {
            self.delete(key);
        }
        self.put_blocks(file, content.blocks());
        self.touch_file(file, content.size())
    }

    /// Changes an inode as `change` says: a new version of it, unless this transaction made the present one.
    pub fn inode(&mut self, object: Object, change: impl FnOnce(&mut InodeData)) -> &mut Self {
        let Some(mut inode) = self.live_inode(object) else { return self.fail(object, b"", "no inode") };
        change(&mut inode);
        self.put_inode(object, &inode);
        self
    }

    /// Changes an inode in place, without history: what the original does for the two times.
    pub fn inode_in_place(&mut self, object: Object, change: impl FnOnce(&mut InodeData)) -> &mut Self {
        let Some(mut inode) = self.live_inode(object) else { return self.fail(object, b"", "no inode") };
        change(&mut inode);
        if let Some(record) = self.live_mut(object.key(LOCALIZE_INODE, RecType::INODE, 0)) {
            record.data = Data::bytes(inode.as_bytes());
        }
        self
    }

    /// Makes a pseudo file system that is a master, and its root directory.
    pub fn pfs_master(&mut self, id: u16, label: &str) -> Object {
        self.put_pfs(id, label.as_bytes(), |pfs| {
            pfs.sync_beg_tid = 1.into();
            pfs.sync_end_tid = 1.into();
        });
        self.make_root(id)
    }

    /// Makes a pseudo file system that is a slave of `master`, seen as of `sync_end`. It gets the master's live records
    /// as they are now; with [`Tid::ZERO`] it was never written to, and has no root.
    pub fn pfs_slave(&mut self, id: u16, label: &str, master: u16, sync_end: Tid) -> Object {
        self.put_pfs(id, label.as_bytes(), |pfs| {
            pfs.shared_uuid = pfs_uuid(master, 0);
            pfs.sync_beg_tid = 1.into();
            pfs.sync_end_tid = sync_end.0.into();
            pfs.mirror_flags = PFS_SLAVE.into();
        });
        if sync_end != Tid::ZERO {
            let copies: Vec<Record> = self
                .records
                .values()
                .filter(|r| r.key.localization >> 16 == u32::from(master) && r.key.create_tid <= sync_end)
                .filter(|r| !matches!(RecType(r.key.rec_type), RecType::PFS | RecType::CONFIG))
                .cloned()
                .collect();
            for mut copy in copies {
                copy.key.localization = u32::from(id) << 16 | copy.key.localization & 0xffff;
                if copy.key.rec_type == RecType::DIRENTRY.0 {
                    copy.data = relocated(&copy.data, id);
                }
                if copy.delete_tid > sync_end {
                    (copy.delete_tid, copy.delete_ts) = (Tid::ZERO, 0);
                }
                self.record(copy);
            }
        }
        Object { pfs: id, id: OBJ_ROOT }
    }

    /// Changes the record of a pseudo file system: a new version of it.
    pub fn pfs(&mut self, id: u16, change: impl FnOnce(&mut PfsData)) -> &mut Self {
        let key = pfs_key(id);
        let Some(mut pfs) = self.live(key).and_then(|r| PfsData::read_from_bytes(&r.data.get().ok()?).ok())
        else {
            return self.fail(Object { pfs: id, id: OBJ_ROOT }, b"", "no such pseudo file system");
        };
        change(&mut pfs);
        self.put(key, ObjType::DIRECTORY, Data::bytes(pfs.as_bytes()));
        self
    }

    /// Names the view of a pseudo file system as of `tid`.
    pub fn snapshot(&mut self, pfs: u16, tid: Tid, label: &str) -> &mut Self {
        let mut data = SnapshotData::new_zeroed();
        data.tid = tid.0.into();
        data.ts = self.now_us.into();
        let n = label.len().min(63);
        data.label[..n].copy_from_slice(&label.as_bytes()[..n]);
        let key = Object { pfs, id: OBJ_ROOT }.key(LOCALIZE_INODE, RecType::SNAPSHOT, tid.0 as i64);
        self.record(Record::new(key.at(self.tid), ObjType(0), Data::bytes(data.as_bytes())))
    }

    /// Sets the configuration text of a pseudo file system.
    pub fn config(&mut self, pfs: u16, text: &str) -> &mut Self {
        let mut data = [0; CONFIG_LEN];
        let n = text.len().min(CONFIG_LEN - 1);
        data[..n].copy_from_slice(&text.as_bytes()[..n]);
        let key = Object { pfs, id: OBJ_ROOT }.key(LOCALIZE_INODE, RecType::CONFIG, 0);
        self.record(Record::new(key.at(self.tid), ObjType(0), Data::bytes(data)))
    }

    /// Adds any record, in place of one with the same key.
    pub fn record(&mut self, record: Record) -> &mut Self {
        self.records.insert(record.key, record);
        self
    }

    /// Adds a directory entry at a key of your choice: the name's hash and `iterator`.
    pub fn entry_at(
        &mut self,
        parent: Object,
        name: impl AsRef<[u8]>,
        iterator: i64,
        target: Object,
    ) -> &mut Self {
        let name = name.as_ref();
        let Some(directory) = self.live_inode(parent) else { return self.fail(parent, name, "no directory") };
        let key = entry_key(parent, &directory, hash(&directory).key(name) + iterator);
        self.put_entry(key, name, target)
    }

    /// All records, for whatever no operation does: all but their keys can be altered.
    pub fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.values_mut()
    }

    /// The object that a path of names leads to, now.
    pub fn lookup(&self, from: Object, path: &str) -> Option<Object> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(from, |at, name| self.find_name(at, name.as_bytes()).map(|(_, object)| object))
    }
}
