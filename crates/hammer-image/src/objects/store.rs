//! Records found, made, replaced and deleted: what the operations are made of.

use dfly_hammer::namekey::NameHash;
use dfly_hammer::ondisk::node::{Key, Tid};
use dfly_hammer::ondisk::record::{
    CAP_HASH_ALG1, CAP_LOCAL_ENTRIES, DirentHead, InodeData, LOCALIZE_INODE, LOCALIZE_MISC, OBJ_ROOT,
    ObjType, PfsData, RecType,
};
use dfly_hammer::ondisk::{MAX_NAME, MAX_RECORD_DATA};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{Builder, Object};
use crate::content::block_at;
use crate::record::{Data, Record};

impl Builder {
    pub(super) fn directory_flags(&self) -> u8 {
        match self.format.version {
            ..2 => 0,
            2..6 => CAP_LOCAL_ENTRIES,
            6.. => CAP_LOCAL_ENTRIES | CAP_HASH_ALG1,
        }
    }

    pub(super) fn make_root(&mut self, pfs: u16) -> Object {
        let root = Object { pfs, id: OBJ_ROOT };
        let mut inode = self.new_inode(ObjType::DIRECTORY, 0);
        inode.mode = 0o755.into();
        inode.cap_flags = self.directory_flags();
        self.put_inode(root, &inode);
        root
    }

    pub(super) fn make(
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

    pub(super) fn new_inode(&self, obj_type: ObjType, parent: i64) -> InodeData {
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

    pub(super) fn put_inode(&mut self, object: Object, inode: &InodeData) {
        let key = object.key(LOCALIZE_INODE, RecType::INODE, 0);
        self.put(key, ObjType(inode.obj_type), Data::bytes(inode.as_bytes()));
    }

    pub(super) fn put_pfs(&mut self, id: u16, label: &[u8], set: impl FnOnce(&mut PfsData)) {
        let mut pfs = PfsData::new_zeroed();
        (pfs.shared_uuid, pfs.unique_uuid) = (pfs_uuid(id, 0), pfs_uuid(id, 1));
        let n = label.len().min(63);
        pfs.label[..n].copy_from_slice(&label[..n]);
        set(&mut pfs);
        self.put(pfs_key(id), ObjType::DIRECTORY, Data::bytes(pfs.as_bytes()));
    }

    /// Enters a name at the first key that is not taken; one that this transaction freed still is.
    pub(super) fn put_name(&mut self, parent: Object, name: &[u8], target: Object) -> &mut Self {
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

    pub(super) fn put_entry(&mut self, key: Key, name: &[u8], target: Object) -> &mut Self {
        let Some(inode) = self.live_inode(target) else { return self.fail(target, name, "no inode") };
        let head = DirentHead {
            obj_id: target.id.into(),
            localization: (u32::from(target.pfs) << 16).into(),
            reserved02: 0.into(),
        };
        self.put(key, ObjType(inode.obj_type), Data::bytes([head.as_bytes(), name].concat()));
        self
    }

    pub(super) fn find_name(&self, parent: Object, name: &[u8]) -> Option<(Key, Object)> {
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

    pub(super) fn entries(&self, directory: Object) -> impl Iterator<Item = &Record> {
        self.live_keys(directory, |key| key.rec_type == RecType::DIRENTRY.0)
            .into_iter()
            .filter_map(|key| self.records.get(&key))
    }

    pub(super) fn put_blocks(&mut self, file: Object, blocks: Vec<(u64, Data)>) {
        for (end, data) in blocks {
            self.put_block(file, end, data);
        }
    }

    pub(super) fn put_block(&mut self, file: Object, end: u64, data: Data) {
        match i64::try_from(end) {
            Ok(end) => self.put(file.key(LOCALIZE_MISC, RecType::DATA, end), ObjType::REGULAR, data),
            Err(_) => {
                self.fail(file, b"", "data at the end of the key space");
            }
        }
    }

    /// Changes a file's size: what lies behind it goes, and the blocks at the old and the new end are stored anew,
    /// because their zeros or their length change.
    pub(super) fn resize(&mut self, file: Object, size: u64) {
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

    pub(super) fn touch_file(&mut self, file: Object, size: u64) -> &mut Self {
        let mtime = self.now_us;
        if size == self.size(file) {
            return self.inode_in_place(file, |inode| inode.mtime = mtime.into());
        }
        self.inode(file, |inode| {
            inode.size = size.into();
            inode.mtime = mtime.into();
        })
    }

    pub(super) fn size(&self, file: Object) -> u64 {
        self.live_inode(file).map_or(0, |inode| inode.size.get())
    }

    /// The bytes of a block as the file holds them now.
    pub(super) fn block_bytes(&mut self, file: Object, block: core::ops::Range<u64>) -> Vec<u8> {
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

    pub(super) fn live_inode(&self, object: Object) -> Option<InodeData> {
        let record = self.live(object.key(LOCALIZE_INODE, RecType::INODE, 0))?;
        InodeData::read_from_bytes(&record.data.get().ok()?).ok()
    }

    /// Keys of all live records of an object but those of the file system itself.
    pub(super) fn live_keys(&self, object: Object, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        let mut keys = Vec::new();
        for domain in [LOCALIZE_INODE, LOCALIZE_MISC] {
            let first = object.key(domain, RecType(0), i64::MIN).at(Tid::MIN);
            let last = object.key(domain, RecType(RecType::PFS.0 - 1), i64::MAX);
            let live = self.records.range(first..=last).filter(|(_, r)| r.delete_tid == Tid::ZERO);
            keys.extend(live.map(|(&key, _)| key).filter(&wanted));
        }
        keys
    }

    pub(super) fn live(&self, key: Key) -> Option<&Record> {
        let versions = self.records.range(key.at(Tid::MIN)..=key.at(Tid::ZERO));
        versions.map(|(_, r)| r).rev().find(|r| r.delete_tid == Tid::ZERO)
    }

    pub(super) fn live_mut(&mut self, key: Key) -> Option<&mut Record> {
        let versions = self.records.range_mut(key.at(Tid::MIN)..=key.at(Tid::ZERO));
        versions.map(|(_, r)| r).rev().find(|r| r.delete_tid == Tid::ZERO)
    }

    /// Makes this the record's live version.
    pub(super) fn put(&mut self, key: Key, obj_type: ObjType, data: Data) {
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

    pub(super) fn delete(&mut self, key: Key) {
        if key.create_tid == self.tid {
            self.records.remove(&key);
        } else {
            let (tid, seconds) = (self.tid, self.seconds());
            if let Some(record) = self.records.get_mut(&key) {
                (record.delete_tid, record.delete_ts) = (tid, seconds);
            }
        }
    }

    pub(super) fn seconds(&self) -> u32 {
        (self.now_us / 1_000_000) as u32
    }

    pub(super) fn fail(&mut self, object: Object, name: &[u8], what: &str) -> &mut Self {
        let name = String::from_utf8_lossy(name);
        self.failed.get_or_insert_with(|| {
            format!("object {:#x} of PFS {}, {name:?}: {what}", object.id, object.pfs)
        });
        self
    }
}

impl Object {
    /// The key of a record of this object, behind all its history.
    pub(super) fn key(self, domain: u32, rec_type: RecType, key: i64) -> Key {
        Key {
            localization: u32::from(self.pfs) << 16 | domain,
            obj_id: self.id,
            rec_type: rec_type.0,
            key,
            create_tid: Tid::ZERO,
        }
    }

    pub(super) fn data_key(self, end: u64) -> Key {
        self.key(LOCALIZE_MISC, RecType::DATA, i64::try_from(end).unwrap_or(i64::MAX))
    }
}

pub(super) fn pfs_key(id: u16) -> Key {
    Object { pfs: 0, id: OBJ_ROOT }.key(LOCALIZE_MISC, RecType::PFS, i64::from(id) << 16)
}

pub(super) fn pfs_uuid(id: u16, role: u8) -> [u8; 16] {
    let [low, high] = id.to_le_bytes();
    [b'p', b'f', b's', role, low, high, 0x43, 0x04, 0x85, 0x06, b'd', b'f', b'l', b'y', 0, 1]
}

pub(super) fn hash(directory: &InodeData) -> NameHash {
    NameHash::from_cap_flags(directory.cap_flags).unwrap_or(NameHash::Alg1)
}

pub(super) fn entry_key(parent: Object, directory: &InodeData, key: i64) -> Key {
    let local = directory.cap_flags & CAP_LOCAL_ENTRIES != 0;
    parent.key(if local { LOCALIZE_INODE } else { LOCALIZE_MISC }, RecType::DIRENTRY, key)
}

pub(super) fn entry(record: &Record) -> Option<(DirentHead, Vec<u8>)> {
    let bytes = record.data.get().ok()?;
    let (head, name) = DirentHead::read_from_prefix(&bytes).ok()?;
    Some((head, name.to_vec()))
}

pub(super) fn relocated(data: &Data, pfs: u16) -> Data {
    match data.get() {
        Ok(bytes) if bytes.len() >= size_of::<DirentHead>() => {
            let mut bytes = bytes.to_vec();
            bytes[8..12].copy_from_slice(&(u32::from(pfs) << 16).to_le_bytes());
            Data::bytes(bytes)
        }
        _ => data.clone(),
    }
}
