//! Records: each by itself, against its neighbours, and against the object that it belongs to.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use dfly_hal::Wait;

use super::links::{Link, Links, What};
use super::space::{Extent, Use, Window};
use super::tree::in_whole_block;
use super::{Depth, Finding, Kind, Log, ObjectRef};
use crate::btree::{self, Cursor, Scan};
use crate::error::Error;
use crate::inspect::is_known;
use crate::media::Media;
use crate::namekey::NameHash;
use crate::ondisk::node::{Element, Key, Tid};
use crate::ondisk::record::{
    CAP_HASH_MASK, CAP_LOCAL_ENTRIES, DirentHead, FIX_KEY_SYMLINK, InodeData, LOCALIZE_INODE, LOCALIZE_MISC,
    OBJ_ROOT, ObjType, PFS_DELETED, PFS_SLAVE, PfsData, RecType, SYMLINK_INLINE, SnapshotData,
};
use crate::ondisk::volume::VolumeHeader;
use crate::ondisk::{
    BIG_BLOCK_SIZE, BLOCK_DEMARC, BUFFER_SIZE, LARGE_BLOCK, MAX_NAME, Offset, SMALL_BLOCK, Zone,
};
use crate::record::{self, Record};

/// Ids from here on are never given out.
const TID_LIMIT: u64 = 0xffff_ffff_ff00_0000;
/// The transaction of the records that `newfs_hammer` makes: one above what it leaves in the header.
const FIRST_TID: u64 = 0x1_0000_0001;
/// Lengths of records that have only one.
const CONFIG_LEN: usize = 1024;
/// A file of up to so many bytes may lie in one short record.
const SHORT_FILE: u64 = 8192;
/// Versions of data records that are remembered, to compare the next one with.
const SPANS: usize = 1024;
/// Entries that are compared with one whose name another one may have.
const RIVALS: usize = 1024;

/// What the first walk remembers from record to record.
pub(super) struct Records<'m> {
    media: &'m Media,
    depth: Depth,
    last_tid: u64,
    previous: Option<Element>,
    owner: Option<Owner>,
    pfs: Vec<PfsSeen>,
    /// The root directory of the first pseudo file system: it comes before the descriptions.
    has_root: bool,
    /// The pseudo file system that the walk is in.
    inside: Option<u16>,
    /// Data records that may reach into the next one.
    spans: VecDeque<Span>,
}

/// The object that the records under way belong to.
struct Owner {
    object: ObjectRef,
    /// Its newest inode, and whether that lives; `None` if it has none. Without a value if it cannot be read.
    inode: Result<Option<(InodeData, bool)>, Error>,
    /// That its inode is missing has been said.
    missed: bool,
}

struct PfsSeen {
    id: u16,
    flags: u32,
    at: Offset,
    has_root: bool,
}

#[derive(Clone, Copy)]
struct Span {
    end: u64,
    create_tid: u64,
    delete_tid: u64,
}

impl Span {
    fn lives_with(&self, other: &Self) -> bool {
        let dies = |s: &Self| if s.delete_tid == 0 { u64::MAX } else { s.delete_tid };
        self.create_tid < dies(other) && other.create_tid < dies(self)
    }
}

fn object_of(e: &Element) -> ObjectRef {
    ObjectRef { pfs: (e.base.localization.get() >> 16) as u16, obj_id: e.base.obj_id.get() }
}

/// The newest version of an object's inode.
pub(super) fn newest_inode(
    media: &Media,
    w: &mut dyn Wait,
    object: ObjectRef,
) -> Result<Option<(Element, InodeData)>, Error> {
    let key = Key {
        localization: u32::from(object.pfs) << 16 | LOCALIZE_INODE,
        obj_id: object.obj_id,
        rec_type: RecType::INODE.0,
        key: 0,
        create_tid: Tid::ZERO,
    };
    let mut cursor = Cursor::seek(media, w, &key)?;
    match cursor.prev(w)?.filter(|e| e.base.key().same_record(&key)) {
        Some(e) => {
            let inode = *Record::load_unchecked(media, w, &e)?.view()?;
            Ok(Some((e, inode)))
        }
        None => Ok(None),
    }
}

/// Where the data of a record lies, if it can lie there.
fn extent(media: &Media, e: &Element) -> Option<(Offset, u32)> {
    let extent = record::Extent::of(e).ok()?;
    let (at, len) = (extent.at, extent.len as u64);
    let unit = if len <= BUFFER_SIZE as u64 { BUFFER_SIZE as u64 } else { BIG_BLOCK_SIZE };
    let fits = len > 0 && at.0.is_multiple_of(16) && at.0 % unit + len <= unit && in_whole_block(media, at);
    fits.then_some((at, extent.len as u32))
}

/// Hands a record to those who compare across the tree.
pub(super) fn collect(media: &Media, w: &mut dyn Wait, e: &Element, places: &mut Window, links: &mut Links) {
    let object = object_of(e);
    let rec_type = RecType(e.base.rec_type.get());
    let Some((at, len)) = extent(media, e) else { return };
    let what = if rec_type == RecType::DATA { Use::Data } else { Use::Record };
    places.add(Extent::new(at, len, object, what));
    let wanted = matches!(rec_type, RecType::INODE | RecType::DIRENTRY);
    if !wanted || links.is_done() || !e.base.visible_at(Tid::MAX) {
        return;
    }
    // What cannot be read was found by the first walk.
    let Ok(record) = Record::load_unchecked(media, w, e) else { return };
    let link = if rec_type == RecType::INODE {
        let Ok(inode) = record.view::<InodeData>() else { return };
        let nlinks = u32::try_from(inode.nlinks.get()).unwrap_or(u32::MAX);
        let parent = inode.parent_obj_id.get();
        Link { object, at, what: What::Inode { parent, nlinks, obj_type: inode.obj_type } }
    } else {
        let Ok(head) = record.view::<DirentHead>() else { return };
        let target = ObjectRef { pfs: object.pfs, obj_id: head.obj_id.get() };
        Link {
            object: target,
            at,
            what: What::Name { dir: object.obj_id, count: 1, obj_type: e.base.obj_type },
        }
    };
    links.add(link);
}

impl<'m> Records<'m> {
    pub(super) fn new(media: &'m Media, depth: Depth) -> Self {
        let last_tid = media.header().vol0_next_tid.get().max(FIRST_TID);
        let (pfs, spans) = (Vec::new(), VecDeque::new());
        Self {
            media,
            depth,
            last_tid,
            previous: None,
            owner: None,
            pfs,
            has_root: false,
            inside: None,
            spans,
        }
    }

    /// Looks at the next record of the tree, in the leaf at `leaf`.
    pub(super) fn look(&mut self, w: &mut dyn Wait, e: &Element, leaf: Offset, log: &mut Log<'_>) {
        log.report.records += 1;
        let object = object_of(e);
        let rec_type = RecType(e.base.rec_type.get());
        let finding = |kind| Finding::new(kind, leaf).of(object);
        if !is_known(rec_type) {
            return log.found(finding(Kind::RecordType).values(rec_type.0.into(), 0));
        }
        self.tids(e, leaf, log);
        self.enter(object, leaf, log);
        let (domain, key) = (e.base.localization.get() & 0xffff, e.base.key.get());
        let root = object.obj_id == OBJ_ROOT;
        let in_place = match rec_type {
            RecType::INODE => domain == LOCALIZE_INODE && key == 0,
            RecType::DIRENTRY => matches!(domain, LOCALIZE_INODE | LOCALIZE_MISC),
            RecType::PFS => {
                let known = key & 0xffff == 0 && (0..=0xffff).contains(&(key >> 16));
                domain == LOCALIZE_MISC && object.pfs == 0 && root && known
            }
            RecType::SNAPSHOT => domain == LOCALIZE_INODE && root,
            RecType::CONFIG => domain == LOCALIZE_INODE && root && key == 0,
            _ => domain == LOCALIZE_MISC,
        };
        if !in_place {
            log.found(finding(Kind::RecordDomain));
        }
        self.data(w, e, leaf, log);
        self.previous = Some(*e);
    }

    fn tids(&mut self, e: &Element, leaf: Offset, log: &mut Log<'_>) {
        let finding = |kind| Finding::new(kind, leaf).of(object_of(e));
        let (created, deleted) = (e.base.create_tid.get(), e.base.delete_tid.get());
        if created <= 1 || created >= TID_LIMIT || (deleted != 0 && deleted <= created) {
            log.found(finding(Kind::RecordTids).values(deleted, created));
        }
        let last = created.max(deleted);
        if last > self.last_tid {
            log.found(finding(Kind::NextTid).values(last, self.last_tid));
        }
        if deleted != 0 && e.as_leaf().delete_ts.get() == 0 {
            log.found(finding(Kind::RecordTime));
        }
        let before = self.previous.filter(|p| p.base.key().same_record(&e.base.key()));
        if let Some(before) = before.map(|p| p.base.delete_tid.get())
            && (before == 0 || before > created)
        {
            log.found(finding(Kind::HistoryOverlap).values(before, created));
        }
    }

    /// Another pseudo file system, or another object, begins.
    fn enter(&mut self, object: ObjectRef, leaf: Offset, log: &mut Log<'_>) {
        if self.inside != Some(object.pfs) {
            self.inside = Some(object.pfs);
            // That of the first is known when it has been walked.
            let known = object.pfs == 0 || self.pfs.iter().any(|p| p.id == object.pfs);
            if !known {
                log.found(Finding::new(Kind::PfsMissing, leaf).of(object));
            }
        }
        if self.owner.as_ref().is_some_and(|o| o.object != object) {
            self.owner = None;
        }
        if self.owner.is_none() {
            self.spans.clear();
        }
    }

    /// Reads what a record carries, and looks at it.
    fn data(&mut self, w: &mut dyn Wait, e: &Element, leaf: Offset, log: &mut Log<'_>) {
        let object = object_of(e);
        let rec_type = RecType(e.base.rec_type.get());
        let tail = e.as_leaf();
        let (place, len) = (Offset(tail.data_offset.get()), tail.data_len.get());
        let finding = |kind| Finding::new(kind, place).of(object);
        let len_fits = match rec_type {
            RecType::PFS => len as usize == size_of::<PfsData>(),
            RecType::SNAPSHOT => len as usize == size_of::<SnapshotData>(),
            RecType::CONFIG => len as usize == CONFIG_LEN,
            RecType::DIRENTRY => (17..=16 + MAX_NAME as i32).contains(&len),
            RecType::DATA => (len >= SMALL_BLOCK as i32) == (place.zone() == Zone::LARGE_DATA),
            _ => true,
        };
        if extent(self.media, e).is_none() || !len_fits {
            return log.found(finding(Kind::RecordPlace).values(len as u64, 0));
        }
        if rec_type == RecType::DATA {
            self.file_data(w, e, leaf, log);
            if self.depth == Depth::Quick {
                return;
            }
        }
        let record = match Record::load_unchecked(self.media, w, e) {
            Ok(record) => record,
            Err(_) => return log.found(finding(Kind::RecordUnreadable)),
        };
        log.report.checked_bytes += len as u64;
        if record.flavor(self.media).is_none() {
            log.found(finding(Kind::RecordChecksum));
        }
        match rec_type {
            RecType::INODE => {
                if let Ok(inode) = record.view::<InodeData>() {
                    self.inode(w, e, inode, log);
                }
            }
            RecType::DIRENTRY => self.dirent(w, e, &record, log),
            RecType::PFS => {
                if let Ok(pfs) = record.view::<PfsData>() {
                    self.description(e, pfs, log);
                }
            }
            RecType::SNAPSHOT => {
                let fits = |s: &SnapshotData| s.tid.get() == e.base.key.get() as u64 && s.label.contains(&0);
                if !record.view::<SnapshotData>().is_ok_and(fits) {
                    log.found(finding(Kind::SnapshotRecord));
                }
            }
            RecType::CONFIG if !record.bytes().is_ok_and(|b| b.contains(&0)) => {
                log.found(finding(Kind::ConfigRecord));
            }
            RecType::FIX | RecType::EXT | RecType::DB => {
                self.owned(w, e, leaf, log);
            }
            _ => {}
        }
    }

    fn inode(&mut self, w: &mut dyn Wait, e: &Element, inode: &InodeData, log: &mut Log<'_>) {
        let object = object_of(e);
        let live = e.base.visible_at(Tid::MAX);
        let at = Offset(e.as_leaf().data_offset.get());
        let finding = |kind| Finding::new(kind, at).of(object);
        // The newest version comes last.
        self.owner = Some(Owner { object, inode: Ok(Some((*inode, live))), missed: false });
        let obj_type = ObjType(inode.obj_type);
        if e.base.obj_type != inode.obj_type {
            log.found(finding(Kind::ObjectType).values(e.base.obj_type.into(), inode.obj_type.into()));
        }
        let directory = obj_type == ObjType::DIRECTORY;
        let caps_fit = match directory {
            true => {
                inode.cap_flags & !(CAP_HASH_MASK | CAP_LOCAL_ENTRIES) == 0
                    && NameHash::from_cap_flags(inode.cap_flags).is_some()
            }
            false => inode.cap_flags == 0,
        };
        let fits = inode.version.get() == 1
            && (ObjType::DIRECTORY.0..=ObjType::SOCKET.0).contains(&inode.obj_type)
            && inode.mode.get() & !0o7777 == 0
            && i64::try_from(inode.size.get()).is_ok()
            && caps_fit
            && (!directory || (inode.size.get() == 0 && inode.nlinks.get() <= 1))
            && (object.obj_id != OBJ_ROOT || directory);
        if !fits {
            log.found(finding(Kind::InodeField));
        }
        if !live {
            return;
        }
        log.report.inodes += 1;
        self.has_root |= object == ObjectRef { pfs: 0, obj_id: OBJ_ROOT };
        if object.obj_id == OBJ_ROOT
            && let Some(pfs) = self.pfs.iter_mut().find(|p| p.id == object.pfs)
        {
            pfs.has_root = true;
        }
        if obj_type == ObjType::SYMLINK && !self.has_target(w, object, inode) {
            log.found(finding(Kind::SymlinkTarget).values(0, inode.size.get()));
        }
    }

    fn has_target(&self, w: &mut dyn Wait, object: ObjectRef, inode: &InodeData) -> bool {
        let size = inode.size.get();
        if size <= SYMLINK_INLINE as u64 {
            let target = inode.symlink.get(..size as usize).unwrap_or_default();
            return size > 0 && !target.contains(&0);
        }
        let key = Key {
            localization: u32::from(object.pfs) << 16 | LOCALIZE_MISC,
            obj_id: object.obj_id,
            rec_type: RecType::FIX.0,
            key: FIX_KEY_SYMLINK,
            create_tid: Tid::ZERO,
        };
        match btree::lookup(self.media, w, &key, Tid::MAX) {
            Ok(target) => target.is_some_and(|t| t.as_leaf().data_len.get() as u64 == size),
            // The tree is broken there, which is found elsewhere.
            Err(_) => true,
        }
    }

    /// The newest inode of the object that a record belongs to, if that can be told. Says so if a live record has no live
    /// one, or one of another type.
    fn owned(
        &mut self,
        w: &mut dyn Wait,
        e: &Element,
        leaf: Offset,
        log: &mut Log<'_>,
    ) -> Option<(InodeData, bool)> {
        let object = object_of(e);
        let media = self.media;
        let owner = self.owner.get_or_insert_with(|| {
            let inode = newest_inode(media, w, object)
                .map(|found| found.map(|(e, inode)| (inode, e.base.visible_at(Tid::MAX))));
            Owner { object, inode, missed: false }
        });
        let inode = owner.inode.as_ref().ok()?;
        let live = e.base.visible_at(Tid::MAX);
        if live && !inode.is_some_and(|(_, live)| live) && !owner.missed {
            owner.missed = true;
            log.found(Finding::new(Kind::NoInode, leaf).of(object));
        }
        *inode
    }

    fn dirent(&mut self, w: &mut dyn Wait, e: &Element, record: &Record, log: &mut Log<'_>) {
        let object = object_of(e);
        let at = record.at();
        let finding = |kind| Finding::new(kind, at).of(object);
        let Some((head, name)) =
            record.bytes().ok().and_then(|b| b.split_first_chunk::<{ size_of::<DirentHead>() }>())
        else {
            return;
        };
        let head: &DirentHead = zerocopy::transmute_ref!(head);
        let names_nothing = matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, 0 | b'/'));
        if names_nothing {
            log.found(finding(Kind::DirentName));
        }
        let target = head.localization.get();
        if target != u32::from(object.pfs) << 16 {
            log.found(finding(Kind::DirentTarget).values(target.into(), u64::from(object.pfs) << 16));
        }
        let Some((dir, _)) = self.owned(w, e, at, log) else { return };
        if dir.obj_type != ObjType::DIRECTORY.0 {
            log.found(finding(Kind::ObjectType).values(dir.obj_type.into(), ObjType::DIRECTORY.0.into()));
            return;
        }
        let local = dir.cap_flags & CAP_LOCAL_ENTRIES != 0;
        let domain = if local { LOCALIZE_INODE } else { LOCALIZE_MISC };
        if e.base.localization.get() & 0xffff != domain {
            log.found(finding(Kind::RecordDomain));
        }
        let Some(hash) = NameHash::from_cap_flags(dir.cap_flags) else { return };
        let (keys, key) = (hash.keys(name), e.base.key.get());
        if !keys.contains(&key) {
            log.found(finding(Kind::DirentKey).values(key as u64, *keys.start() as u64));
        } else if e.base.visible_at(Tid::MAX) && self.has_rival(w, e, *keys.start(), name) {
            log.found(finding(Kind::DirentTwice));
        }
    }

    /// Whether a live entry of the same name stands before `e`, from key `from` on.
    fn has_rival(&self, w: &mut dyn Wait, e: &Element, from: i64, name: &[u8]) -> bool {
        let key = e.base.key();
        let Some(last) = key.key.checked_sub(1).filter(|last| *last >= from) else { return false };
        let scan = Scan::new(self.media, w, &Key { key: from, ..key }, &Key { key: last, ..key }, Tid::MAX);
        let Ok(mut scan) = scan else { return false };
        for _ in 0..RIVALS {
            let Ok(Some(other)) = scan.next(w) else { return false };
            let named = Record::load_unchecked(self.media, w, &other);
            let same = |r: Record| r.bytes().is_ok_and(|b| b.get(size_of::<DirentHead>()..) == Some(name));
            if named.is_ok_and(same) {
                return true;
            }
        }
        false
    }

    fn description(&mut self, e: &Element, pfs: &PfsData, log: &mut Log<'_>) {
        let at = Offset(e.as_leaf().data_offset.get());
        let flags = pfs.mirror_flags.get();
        if flags & !(PFS_SLAVE | PFS_DELETED) != 0 {
            log.found(Finding::new(Kind::PfsRecord, at).of(object_of(e)).values(flags.into(), 0));
        }
        if !e.base.visible_at(Tid::MAX) || self.pfs.try_reserve(1).is_err() {
            return;
        }
        let id = (e.base.key.get() >> 16) as u16;
        self.pfs.push(PfsSeen { id, flags, at, has_root: id == 0 && self.has_root });
    }

    fn file_data(&mut self, w: &mut dyn Wait, e: &Element, leaf: Offset, log: &mut Log<'_>) {
        let object = object_of(e);
        let tail = e.as_leaf();
        let at = Offset(tail.data_offset.get());
        let finding = |kind| Finding::new(kind, at).of(object);
        let (end, len) = (e.base.key.get() as u64, tail.data_len.get() as u64);
        let Some(start) = end.checked_sub(len) else {
            return log.found(finding(Kind::DataGrid).values(end, len));
        };
        let block = if start < BLOCK_DEMARC { SMALL_BLOCK } else { LARGE_BLOCK };
        let short = start == 0 && len <= SHORT_FILE && len.is_multiple_of(16);
        if !short && (len != block || !start.is_multiple_of(block)) {
            log.found(finding(Kind::DataGrid).values(start, start / block * block));
        }
        let owner = self.owned(w, e, leaf, log);
        if let Some((inode, live)) = owner {
            if inode.obj_type != e.base.obj_type {
                let (found, expected) = (e.base.obj_type.into(), inode.obj_type.into());
                log.found(Finding::new(Kind::ObjectType, leaf).of(object).values(found, expected));
            }
            if live && e.base.visible_at(Tid::MAX) && start >= inode.size.get() {
                log.found(finding(Kind::DataBeyondEnd).values(start, inode.size.get()));
            }
        }
        let (create_tid, delete_tid) = (e.base.create_tid.get(), e.base.delete_tid.get());
        let span = Span { end, create_tid, delete_tid };
        self.spans.retain(|s| s.end > start);
        // Versions of one record are compared as such.
        if let Some(other) = self.spans.iter().find(|s| s.end != end && s.lives_with(&span)) {
            log.found(finding(Kind::DataOverlap).values(start, other.end));
        }
        if self.spans.len() >= SPANS {
            self.spans.pop_front();
        }
        self.spans.push_back(span);
    }

    /// What can be said when the tree has been walked.
    pub(super) fn finish(self, log: &mut Log<'_>) {
        let root = Offset::new(Zone::RAW_VOLUME, 0, 0);
        if !self.pfs.iter().any(|p| p.id == 0) {
            log.found(Finding::new(Kind::PfsMissing, root).of(ObjectRef { pfs: 0, obj_id: OBJ_ROOT }));
        }
        for pfs in self.pfs.iter().filter(|p| p.flags & (PFS_SLAVE | PFS_DELETED) == 0 && !p.has_root) {
            log.found(Finding::new(Kind::PfsRoot, pfs.at).of(ObjectRef { pfs: pfs.id, obj_id: OBJ_ROOT }));
        }
        let stored = self.media.header().vol0_stat_inodes.get();
        if u64::try_from(stored) != Ok(log.report.inodes) {
            let byte = core::mem::offset_of!(VolumeHeader, vol0_stat_inodes) as u64;
            let finding = Finding::new(Kind::InodeCount, Offset::new(Zone::RAW_VOLUME, 0, byte));
            log.found(finding.values(stored as u64, log.report.inodes));
        }
    }
}
