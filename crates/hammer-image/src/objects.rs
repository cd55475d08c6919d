//! The builder: a file system of records in memory, changed by operations that leave history as the original's do.

use std::collections::BTreeMap;

use dfly_hammer::crc::{Checksum, Flavor};
use dfly_hammer::namekey::NameHash;
use dfly_hammer::ondisk::node::{BaseElement, Element, Key, LeafTail, TYPE_RECORD, Tid};
use dfly_hammer::ondisk::record::{
    CAP_HASH_ALG1, CAP_LOCAL_ENTRIES, DirentHead, FIX_KEY_SYMLINK, InodeData, LOCALIZE_INODE, LOCALIZE_MISC,
    OBJ_ROOT, ObjType, PFS_SLAVE, PfsData, RecType, SYMLINK_INLINE, SnapshotData,
};
use dfly_hammer::ondisk::{MAX_NAME, MAX_RECORD_DATA, Offset};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::content::{Content, block_at};
use crate::image::Image;
use crate::layout::{Contents, Format, Space};
use crate::record::{Data, Record, data_crc};
use crate::tree::{Shape, Tree};
use crate::{Error, Result};

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

/// Describes a file system and its history, and writes it as an [`Image`].
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
        fs.put_pfs(0, label.as_bytes(), |pfs| (pfs.shared_uuid, pfs.unique_uuid) = (fsid, fsid));
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

    /// All records, for whatever no operation does: `change` sees each one and can alter all but its key.
    pub fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.values_mut()
    }

    /// The object that a path of names leads to, now.
    pub fn lookup(&self, from: Object, path: &str) -> Option<Object> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(from, |at, name| self.find_name(at, name.as_bytes()).map(|(_, object)| object))
    }

    /// Builds the image.
    pub fn finish(&self) -> Result<Image> {
        if let Some(what) = &self.failed {
            return Err(Error::Description(what.clone()));
        }
        let (mut image, mut space) = self.format.begin()?;
        let keys: Vec<Key> = self.records.keys().copied().collect();
        let tree = Tree::plan(&keys, self.shape, &mut space)?;
        let flavor = Checksum::of_version(self.format.version).newest();
        let elements = self.write_data(&mut image, &mut space, flavor)?;
        let root = tree.root();
        tree.write(&elements, &mut image, flavor)?;

        let mut tids =
            self.records.values().map(|r| r.key.create_tid.0.max(r.delete_tid.0)).max().unwrap_or(0);
        // Object ids come from the same counter and must never be handed out again.
        if self.next_object > 0x1_0000_0400 {
            tids = tids.max(self.next_object as u64);
        }
        let live = |r: &&Record| r.key.rec_type == RecType::INODE.0 && r.delete_tid == Tid::ZERO;
        let inodes = self.records.values().filter(live).count() as i64;
        self.format.end(&mut image, &space, &Contents { root, next_tid: tids, inodes })?;
        Ok(image)
    }

    /// Stores the records' data in the order of their creation, and makes their elements in the order of their keys.
    fn write_data(&self, image: &mut Image, space: &mut Space, flavor: Flavor) -> Result<Vec<Element>> {
        let mut order: Vec<(usize, &Record)> = self.records.values().enumerate().collect();
        order.sort_by_key(|(_, record)| record.key.create_tid);
        let mut elements = vec![Element::new_zeroed(); order.len()];
        let mut stored: BTreeMap<(u32, usize), Vec<Offset>> = BTreeMap::new();
        for (index, record) in order {
            let data = record.data.get()?;
            if data.len() > MAX_RECORD_DATA {
                return Err(Error::Description(format!("{:?}: more than 64 KiB of data", record.key)));
            }
            let old = record.key.create_tid < self.old_crc_before;
            let crc = data_crc(record.key.rec_type, &data, if old { Flavor::Iso } else { flavor });
            let at = if data.is_empty() {
                Offset::NONE
            } else {
                let twins = stored.entry((crc, data.len())).or_default();
                let share = self.dedup && record.key.rec_type == RecType::DATA.0;
                let mut twin = None;
                for &at in twins.iter().filter(|_| share) {
                    if *image.read(at, data.len())? == *data {
                        twin = Some(at);
                        break;
                    }
                }
                match twin {
                    Some(at) => {
                        space.share(at, data.len());
                        at
                    }
                    None => {
                        let at = space.alloc(record.zone(), data.len())?;
                        image.write(at, &data)?;
                        if share {
                            twins.push(at);
                        }
                        at
                    }
                }
            };
            elements[index] = element(record, at, crc);
        }
        Ok(elements)
    }

    fn directory_flags(&self) -> u8 {
        match self.format.version {
            ..2 => 0,
            2..6 => CAP_LOCAL_ENTRIES,
            6.. => CAP_LOCAL_ENTRIES | CAP_HASH_ALG1,
        }
    }

    fn make_root(&mut self, pfs: u16) -> Object {
        let root = Object { pfs, id: OBJ_ROOT };
        let mut inode = self.new_inode(ObjType::DIRECTORY, 0);
        inode.mode = 0o755.into();
        inode.cap_flags = self.directory_flags();
        self.put_inode(root, &inode);
        root
    }

    fn make(
        &mut self,
        parent: Object,
        name: &[u8],
        obj_type: ObjType,
        set: impl FnOnce(&mut InodeData),
    ) -> Object {
        let object = Object { pfs: parent.pfs, id: self.next_object };
        self.next_object += 1;
        let mut inode = self.new_inode(obj_type, parent.id);
        set(&mut inode);
        self.put_inode(object, &inode);
        self.put_name(parent, name, object);
        object
    }

    fn new_inode(&self, obj_type: ObjType, parent: i64) -> InodeData {
        let mut inode = InodeData::new_zeroed();
        inode.version = 1.into();
        inode.mode = 0o644.into();
        inode.obj_type = obj_type.0;
        inode.parent_obj_id = parent.into();
        inode.nlinks = 1.into();
        inode.ctime = self.now_us.into();
        inode.mtime = self.now_us.into();
        inode.atime = self.now_us.into();
        inode
    }

    fn put_inode(&mut self, object: Object, inode: &InodeData) {
        let key = object.key(LOCALIZE_INODE, RecType::INODE, 0);
        self.put(key, ObjType(inode.obj_type), Data::bytes(inode.as_bytes()));
    }

    fn put_pfs(&mut self, id: u16, label: &[u8], set: impl FnOnce(&mut PfsData)) {
        let mut pfs = PfsData::new_zeroed();
        (pfs.shared_uuid, pfs.unique_uuid) = (pfs_uuid(id, 0), pfs_uuid(id, 1));
        let n = label.len().min(63);
        pfs.label[..n].copy_from_slice(&label[..n]);
        set(&mut pfs);
        self.put(pfs_key(id), ObjType::DIRECTORY, Data::bytes(pfs.as_bytes()));
    }

    /// Enters a name at the first key that is not taken; one that this transaction freed still is.
    fn put_name(&mut self, parent: Object, name: &[u8], target: Object) -> &mut Self {
        if name.is_empty() || name.len() > MAX_NAME {
            return self.fail(parent, name, "not a name");
        }
        let Some(directory) = self.live_inode(parent) else { return self.fail(parent, name, "no directory") };
        if target.pfs != parent.pfs || self.find_name(parent, name).is_some() {
            return self.fail(parent, name, "exists, or is in another pseudo file system");
        }
        let now = self.tid;
        let taken = |key: Key| {
            let versions = self.records.range(key.at(Tid::MIN)..=key.at(Tid::ZERO));
            versions.map(|(_, r)| r.delete_tid).any(|deleted| deleted == Tid::ZERO || deleted == now)
        };
        let free = hash(&directory)
            .keys(name)
            .map(|key| entry_key(parent, &directory, key))
            .find(|&key| !taken(key));
        match free {
            Some(key) => {
                let mtime = self.now_us;
                self.inode_in_place(parent, |inode| inode.mtime = mtime.into());
                self.put_entry(key, name, target)
            }
            None => self.fail(parent, name, "no free key"),
        }
    }

    fn put_entry(&mut self, key: Key, name: &[u8], target: Object) -> &mut Self {
        let Some(inode) = self.live_inode(target) else { return self.fail(target, name, "no inode") };
        let head = DirentHead {
            obj_id: target.id.into(),
            localization: (u32::from(target.pfs) << 16).into(),
            reserved02: 0.into(),
        };
        self.put(key, ObjType(inode.obj_type), Data::bytes([head.as_bytes(), name].concat()));
        self
    }

    fn find_name(&self, parent: Object, name: &[u8]) -> Option<(Key, Object)> {
        let directory = self.live_inode(parent)?;
        let keys = hash(&directory).keys(name);
        let (first, last) =
            (entry_key(parent, &directory, *keys.start()), entry_key(parent, &directory, *keys.end()));
        let mut entries = self.records.range(first.at(Tid::MIN)..=last.at(Tid::ZERO));
        entries.find_map(|(&key, record)| {
            let (head, found) = entry(record)?;
            let object = Object { pfs: (head.localization.get() >> 16) as u16, id: head.obj_id.get() };
            (record.delete_tid == Tid::ZERO && found == name).then_some((key, object))
        })
    }

    fn entries(&self, directory: Object) -> impl Iterator<Item = &Record> {
        self.live_keys(directory, |key| key.rec_type == RecType::DIRENTRY.0)
            .into_iter()
            .filter_map(|key| self.records.get(&key))
    }

    fn put_blocks(&mut self, file: Object, blocks: Vec<(u64, Data)>) {
        for (end, data) in blocks {
            self.put_block(file, end, data);
        }
    }

    fn put_block(&mut self, file: Object, end: u64, data: Data) {
        match i64::try_from(end) {
            Ok(end) => self.put(file.key(LOCALIZE_MISC, RecType::DATA, end), ObjType::REGULAR, data),
            Err(_) => {
                self.fail(file, b"", "data at the end of the key space");
            }
        }
    }

    /// Changes a file's size: what lies behind it goes, and the blocks at the old and the new end are stored anew,
    /// because their zeros or their length change.
    fn resize(&mut self, file: Object, size: u64) {
        let old = self.size(file);
        let end = old.min(size);
        if old == size {
            return;
        }
        let edge = (end > 0).then(|| block_at(end - 1, size));
        let kept = edge.clone().map(|edge| {
            let mut bytes = self.block_bytes(file, edge.clone());
            bytes[(end - edge.start) as usize..].fill(0);
            bytes
        });
        let old_edge = (end > 0).then(|| block_at(end - 1, old));
        let stored = old_edge.clone().is_some_and(|b| self.live(file.data_key(b.end)).is_some());
        let rewritten = stored && (old_edge != edge || edge.as_ref().is_some_and(|edge| end < edge.end));
        let limit = if rewritten { edge.as_ref().map_or(0, |b| b.start) } else { end };
        for key in self.live_keys(file, |key| key.rec_type == RecType::DATA.0) {
            let start = key.key as u64 - self.records[&key].data.len() as u64;
            if start >= limit {
                self.delete(key);
            }
        }
        if let (true, Some(edge), Some(bytes)) = (rewritten, edge, kept) {
            self.put_block(file, edge.end, Data::bytes(bytes));
        }
    }

    fn touch_file(&mut self, file: Object, size: u64) -> &mut Self {
        let mtime = self.now_us;
        if size == self.size(file) {
            return self.inode_in_place(file, |inode| inode.mtime = mtime.into());
        }
        self.inode(file, |inode| {
            inode.size = size.into();
            inode.mtime = mtime.into();
        })
    }

    fn size(&self, file: Object) -> u64 {
        self.live_inode(file).map_or(0, |inode| inode.size.get())
    }

    /// The bytes of a block as the file holds them now.
    fn block_bytes(&mut self, file: Object, block: core::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; (block.end - block.start) as usize];
        let (first, last) = (file.data_key(block.start), file.data_key(block.end + MAX_RECORD_DATA as u64));
        let stored = self.records.range(first.at(Tid::MIN)..=last.at(Tid::ZERO));
        let mut failed = None;
        for (key, record) in stored.filter(|(_, r)| r.delete_tid == Tid::ZERO) {
            let start = key.key as u64 - record.data.len() as u64;
            let from = start.max(block.start);
            let to = (key.key as u64).min(block.end);
            if from < to {
                match record.data.get() {
                    Ok(data) => bytes[(from - block.start) as usize..(to - block.start) as usize]
                        .copy_from_slice(&data[(from - start) as usize..(to - start) as usize]),
                    Err(error) => failed = Some(error),
                }
            }
        }
        if let Some(error) = failed {
            self.fail(file, b"", &error.to_string());
        }
        bytes
    }

    fn live_inode(&self, object: Object) -> Option<InodeData> {
        let record = self.live(object.key(LOCALIZE_INODE, RecType::INODE, 0))?;
        InodeData::read_from_bytes(&record.data.get().ok()?).ok()
    }

    /// Keys of all live records of an object but those of the file system itself.
    fn live_keys(&self, object: Object, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        let mut keys = Vec::new();
        for domain in [LOCALIZE_INODE, LOCALIZE_MISC] {
            let first = object.key(domain, RecType(0), i64::MIN).at(Tid::MIN);
            let last = object.key(domain, RecType(RecType::PFS.0 - 1), i64::MAX);
            let live = self.records.range(first..=last).filter(|(_, r)| r.delete_tid == Tid::ZERO);
            keys.extend(live.map(|(&key, _)| key).filter(&wanted));
        }
        keys
    }

    fn live(&self, key: Key) -> Option<&Record> {
        let versions = self.records.range(key.at(Tid::MIN)..=key.at(Tid::ZERO));
        versions.map(|(_, r)| r).rev().find(|r| r.delete_tid == Tid::ZERO)
    }

    fn live_mut(&mut self, key: Key) -> Option<&mut Record> {
        let versions = self.records.range_mut(key.at(Tid::MIN)..=key.at(Tid::ZERO));
        versions.map(|(_, r)| r).rev().find(|r| r.delete_tid == Tid::ZERO)
    }

    /// Makes this the record's live version.
    fn put(&mut self, key: Key, obj_type: ObjType, data: Data) {
        if self.failed.is_some() {
            return;
        }
        if let Some(key) = self.live(key).map(|r| r.key) {
            self.delete(key);
        }
        let mut record = Record::new(key.at(self.tid), obj_type, data);
        record.create_ts = self.seconds();
        self.records.insert(record.key, record);
    }

    fn delete(&mut self, key: Key) {
        if key.create_tid == self.tid {
            self.records.remove(&key);
        } else {
            let (tid, seconds) = (self.tid, self.seconds());
            if let Some(record) = self.records.get_mut(&key) {
                (record.delete_tid, record.delete_ts) = (tid, seconds);
            }
        }
    }

    fn seconds(&self) -> u32 {
        (self.now_us / 1_000_000) as u32
    }

    fn fail(&mut self, object: Object, name: &[u8], what: &str) -> &mut Self {
        let name = String::from_utf8_lossy(name);
        self.failed.get_or_insert_with(|| {
            format!("object {:#x} of PFS {}, {name:?}: {what}", object.id, object.pfs)
        });
        self
    }
}

impl Object {
    /// The key of a record of this object, behind all its history.
    fn key(self, domain: u32, rec_type: RecType, key: i64) -> Key {
        Key {
            localization: u32::from(self.pfs) << 16 | domain,
            obj_id: self.id,
            rec_type: rec_type.0,
            key,
            create_tid: Tid::ZERO,
        }
    }

    fn data_key(self, end: u64) -> Key {
        self.key(LOCALIZE_MISC, RecType::DATA, i64::try_from(end).unwrap_or(i64::MAX))
    }
}

fn pfs_key(id: u16) -> Key {
    Object { pfs: 0, id: OBJ_ROOT }.key(LOCALIZE_MISC, RecType::PFS, i64::from(id) << 16)
}

fn pfs_uuid(id: u16, role: u8) -> [u8; 16] {
    let [low, high] = id.to_le_bytes();
    [b'p', b'f', b's', role, low, high, 0x43, 0x04, 0x85, 0x06, b'd', b'f', b'l', b'y', 0, 1]
}

fn hash(directory: &InodeData) -> NameHash {
    NameHash::from_cap_flags(directory.cap_flags).unwrap_or(NameHash::Alg1)
}

fn entry_key(parent: Object, directory: &InodeData, key: i64) -> Key {
    let local = directory.cap_flags & CAP_LOCAL_ENTRIES != 0;
    parent.key(if local { LOCALIZE_INODE } else { LOCALIZE_MISC }, RecType::DIRENTRY, key)
}

fn entry(record: &Record) -> Option<(DirentHead, Vec<u8>)> {
    let bytes = record.data.get().ok()?;
    let (head, name) = DirentHead::read_from_prefix(&bytes).ok()?;
    Some((head, name.to_vec()))
}

fn relocated(data: &Data, pfs: u16) -> Data {
    match data.get() {
        Ok(bytes) if bytes.len() >= size_of::<DirentHead>() => {
            let mut bytes = bytes.to_vec();
            bytes[8..12].copy_from_slice(&(u32::from(pfs) << 16).to_le_bytes());
            Data::bytes(bytes)
        }
        _ => data.clone(),
    }
}

fn element(record: &Record, at: Offset, crc: u32) -> Element {
    let base = BaseElement {
        obj_id: record.key.obj_id.into(),
        key: record.key.key.into(),
        create_tid: record.key.create_tid.0.into(),
        delete_tid: record.delete_tid.0.into(),
        rec_type: record.key.rec_type.into(),
        obj_type: record.obj_type.0,
        btype: TYPE_RECORD,
        localization: record.key.localization.into(),
    };
    let tail = LeafTail {
        create_ts: record.create_ts.into(),
        delete_ts: record.delete_ts.into(),
        data_offset: at.0.into(),
        data_len: (record.data.len() as i32).into(),
        data_crc: crc.into(),
    };
    Element::leaf(base, tail)
}
