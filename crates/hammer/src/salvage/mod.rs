//! Everything that can still be read of a damaged file system, as a file system.
//!
//! [`Salvage::open`] needs less than a mount: a broken header is replaced by what `newfs` would have written, a broken UNDO
//! log is passed over, and where the B-tree cannot be walked from end to end, every big-block that may hold nodes is
//! looked through for leaves. What comes out is served through [`dfly_vfs::FileSystem`]: a directory `PFS00000` (and so
//! on) for each pseudo file system with its tree as it is now, and `lost+found` with what no name leads to any more.
//!
//! Nothing is believed without a checksum. File data that is lost reads as zeros; [`Salvage::lost`] says which bytes.
//! An object without an inode is made up from its names and its data. Records that were removed without history
//! (`nohistory`, pruning) may come back where the tree is broken: their old leaves are still there.
//!
//! Memory is bounded by [`Options::memory_bytes`]; what does not fit is counted, and left out.

mod catalogue;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};

use dfly_bio::BlockDevice;
use dfly_hal::Wait;
use dfly_vfs as vfs;
use dfly_vfs::{Access, Attr, Call, Entry, Errno, Kind, NodeId, OpenId, Opened, StatFs};

use self::catalogue::Catalogue;
pub use self::catalogue::Report;
use crate::error::{Error, MountError};
use crate::media::{BATCH, Media};
use crate::object::{InPlaceTimes, Object, ObjectId, View, kind_of};
use crate::ondisk::node::{Element, Key};
use crate::ondisk::record::{
    DirentHead, FIX_KEY_SYMLINK, InodeData, LOCALIZE_INODE, LOCALIZE_MISC, OBJ_ROOT, ObjType, RecType,
    SYMLINK_INLINE,
};
use crate::ondisk::{BUFFER_SIZE, MAX_NAME, MAX_RECORD_DATA};
use crate::pages::Pages;
use crate::record::Record;
use crate::{mount, recovery};

/// How to look.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Budget for what is remembered of records and names, in bytes.
    pub memory_bytes: usize,
    /// Budget of the page cache, in bytes. At least 1 MiB is used.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, cache_bytes: 32 << 20 }
    }
}

/// What happens while the volumes are looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The header of a volume (by its place in the list) cannot be right, and is not used.
    HeaderIgnored(usize),
    /// The UNDO log cannot be applied: the disk is taken as it lies.
    UndoIgnored(Error),
    /// More was looked at.
    Progress(Report),
}

/// An object: pseudo file system, and number there.
type Id = (u16, i64);

/// A name in a directory.
struct Child {
    name: Vec<u8>,
    target: Id,
    obj_type: u8,
    created: u64,
}

/// What was found, as a read-only file system.
///
/// Many threads may use it at once. Operations that take a waiter may block; none may be called from an interrupt.
pub struct Salvage {
    media: Media,
    records: catalogue::Records,
    report: Report,
    /// By directory, in the order of names.
    children: BTreeMap<Id, Vec<Child>>,
    /// The types that names give to objects.
    types: BTreeMap<Id, u8>,
    roots: Vec<u16>,
    orphans: Vec<Id>,
}

/// Records of a file around a place that are looked at, and those over each other that are tried: a sound file has one of
/// each, and four blocks nearby.
const NEIGHBOURS: usize = 512;
const RIVALS: usize = 16;

/// Directories that are on no disk, by the third word of their node.
const TOP: u64 = 1;
const LOST_FOUND: u64 = 2;

fn node_of((pfs, obj_id): Id) -> NodeId {
    NodeId([obj_id as u64, pfs.into(), 0])
}

fn key(id: Id, domain: u32, rec_type: RecType, key: i64) -> Key {
    let object = ObjectId { pfs: id.0, obj_id: id.1, view: View::Current };
    object.key(domain, rec_type, key)
}

impl Salvage {
    /// Looks through `devices`: the volumes, the root volume first where headers do not say which is which. May block, for
    /// as long as it takes to read all of them.
    ///
    /// # Errors
    /// [`MountError::VolumeCount`], [`MountError::TooSmall`] for a device without room for a buffer,
    /// [`MountError::BlockSize`], or want of memory.
    pub fn open(
        devices: &[Arc<dyn BlockDevice>],
        options: &Options,
        w: &mut dyn Wait,
        out: &mut dyn FnMut(Event),
    ) -> Result<Self, MountError> {
        let (volumes, header) =
            mount::open_damaged(devices, w, &mut |index| out(Event::HeaderIgnored(index)))?;
        let pages = Pages::new((options.cache_bytes / BUFFER_SIZE).max(4 * BATCH))?;
        let mut media = Media::new(volumes, header, pages);
        match recovery::recover(&media, w) {
            Ok(recovered) => media.recover(recovered.overlay, recovered.header),
            Err(e) => out(Event::UndoIgnored(e)),
        }
        let Catalogue { records, report, .. } = Catalogue::collect(&media, w, options.memory_bytes, out);
        let mut all = Self {
            media,
            records,
            report,
            children: BTreeMap::new(),
            types: BTreeMap::new(),
            roots: Vec::new(),
            orphans: Vec::new(),
        };
        all.name_all(w);
        all.find_orphans();
        Ok(all)
    }

    /// How the records were found.
    pub fn report(&self) -> Report {
        self.report
    }

    /// The bytes of a file that are lost: they read as zeros. Reads all of the file. May block.
    pub fn lost(&self, w: &mut dyn Wait, node: NodeId) -> Vec<Range<u64>> {
        let mut lost: Vec<Range<u64>> = Vec::new();
        let Some(id) = object_id(node) else { return lost };
        let size = self.inode(w, id).size.get();
        let mut at = 0;
        while at < size {
            let (end, found) = self.stretch(w, id, at, size);
            if matches!(found, Stretch::Lost) {
                match lost.last_mut().filter(|l| l.end == at) {
                    Some(last) => last.end = end,
                    None => lost.push(at..end),
                }
            }
            at = end.max(at + 1);
        }
        lost
    }

    /// Whether an object's inode was found; its attributes are made up if not. May block.
    pub fn has_inode(&self, w: &mut dyn Wait, node: NodeId) -> bool {
        object_id(node).is_none_or(|id| self.stored_inode(w, id).is_some())
    }

    /// Reads all entries of directories.
    fn name_all(&mut self, w: &mut dyn Wait) {
        for (key, e) in self.records.iter().filter(|(k, _)| k.rec_type == RecType::DIRENTRY.0) {
            let Ok(record) = Record::load(&self.media, w, e) else { continue };
            let Ok(bytes) = record.bytes() else { continue };
            let Some((head, name)) = bytes.split_first_chunk::<{ size_of::<DirentHead>() }>() else {
                continue;
            };
            let head: &DirentHead = zerocopy::transmute_ref!(head);
            let pfs = (key.localization >> 16) as u16;
            let child = Child {
                name: name.into(),
                target: (pfs, head.obj_id.get()),
                obj_type: e.base.obj_type,
                created: e.base.create_tid.get(),
            };
            self.types.insert(child.target, child.obj_type);
            self.children.entry((pfs, key.obj_id)).or_default().push(child);
        }
        for children in self.children.values_mut() {
            // Of two entries of one name the newer one counts.
            children.sort_by(|a, b| a.name.cmp(&b.name).then(b.created.cmp(&a.created)));
            children.dedup_by(|b, a| a.name == b.name);
        }
    }

    /// Finds the objects that no way leads to from a root.
    fn find_orphans(&mut self) {
        let objects: BTreeSet<Id> = self
            .records
            .keys()
            .filter(|k| {
                matches!(
                    RecType(k.rec_type),
                    RecType::INODE | RecType::DATA | RecType::DIRENTRY | RecType::FIX
                )
            })
            .map(|k| ((k.localization >> 16) as u16, k.obj_id))
            .collect();
        let pfss: BTreeSet<u16> = objects.iter().map(|o| o.0).collect();
        self.roots = pfss.into_iter().collect();
        let mut reached = BTreeSet::new();
        for &pfs in &self.roots {
            self.reach((pfs, OBJ_ROOT), &mut reached);
        }
        let named: BTreeSet<Id> = self.children.values().flatten().map(|c| c.target).collect();
        let mut orphans = Vec::new();
        // First those without a name, then one of each circle of directories.
        for lost in [false, true] {
            for &object in objects.iter().filter(|o| lost || !named.contains(o)) {
                if !reached.contains(&object) {
                    orphans.push(object);
                    self.reach(object, &mut reached);
                }
            }
        }
        self.orphans = orphans;
    }

    fn reach(&self, from: Id, reached: &mut BTreeSet<Id>) {
        let mut todo = alloc::vec![from];
        while let Some(object) = todo.pop() {
            if reached.insert(object) {
                todo.extend(self.children.get(&object).into_iter().flatten().map(|c| c.target));
            }
        }
    }

    fn stored_inode(&self, w: &mut dyn Wait, id: Id) -> Option<InodeData> {
        let e = self.records.get(&key(id, LOCALIZE_INODE, RecType::INODE, 0))?;
        Record::load(&self.media, w, e).ok()?.view::<InodeData>().ok().copied()
    }

    /// An object's inode, made up if it is lost.
    fn inode(&self, w: &mut dyn Wait, id: Id) -> InodeData {
        if let Some(inode) = self.stored_inode(w, id) {
            return inode;
        }
        let mut inode: InodeData = zerocopy::FromZeros::new_zeroed();
        let last = key(id, LOCALIZE_MISC, RecType::DATA, i64::MAX);
        let data = self.records.range(key(id, LOCALIZE_MISC, RecType::DATA, i64::MIN)..=last).next_back();
        let directory = id.1 == OBJ_ROOT || self.children.contains_key(&id);
        let (obj_type, mode) = match (directory, data, self.types.get(&id)) {
            (true, ..) => (ObjType::DIRECTORY.0, 0o700),
            (false, Some((_, e)), _) => (e.base.obj_type, 0o600),
            (false, None, named) => (named.copied().unwrap_or(ObjType::REGULAR.0), 0o600),
        };
        inode.obj_type = obj_type;
        inode.mode = mode.into();
        inode.nlinks = 1.into();
        // Up to the end of its last block: the true size went with the inode.
        inode.size = data.map_or(0, |(k, _)| u64::try_from(k.key).unwrap_or(0)).into();
        inode
    }

    fn attr(&self, w: &mut dyn Wait, node: NodeId) -> Attr {
        let Some((pfs, obj_id)) = object_id(node) else {
            let mut attr = Attr::new(node, Kind::Directory);
            attr.mode = 0o700;
            attr.nlink = 1;
            return attr;
        };
        let inode = self.inode(w, (pfs, obj_id));
        let object = Object::of(ObjectId { pfs, obj_id, view: View::Current }, inode);
        let mut attr = object.attr(0, InPlaceTimes::Trusted);
        attr.node = node;
        attr
    }

    /// What the bytes of a file from `at` on are, and up to where.
    fn stretch(&self, w: &mut dyn Wait, id: Id, at: u64, size: u64) -> (u64, Stretch) {
        let reach = MAX_RECORD_DATA as u64;
        let by_end = |from: u64, to: u64| {
            let (from, to) = (i64::try_from(from), i64::try_from(to).unwrap_or(i64::MAX));
            let first = key(id, LOCALIZE_MISC, RecType::DATA, from.unwrap_or(i64::MAX));
            self.records.range(first..=key(id, LOCALIZE_MISC, RecType::DATA, to)).map(|(_, e)| Piece::of(e))
        };
        let behind = at.saturating_add(1);
        let Some(next) = by_end(behind, i64::MAX as u64).next() else { return (size, Stretch::Hole) };
        let near = || by_end(behind, next.end.max(at).saturating_add(reach)).take(NEIGHBOURS);
        let starts = near().map(|p| p.start).filter(|start| *start > at).min();
        let mut over: Vec<Piece> = near().filter(|p| p.start <= at).collect();
        if over.is_empty() {
            return (starts.unwrap_or(size).min(size), Stretch::Hole);
        }
        // Where old and new records lie over each other, the newest that is right counts.
        over.sort_unstable_by_key(|p| core::cmp::Reverse(p.element.base.create_tid.get()));
        for piece in over.iter().take(RIVALS) {
            if let Ok(record) = Record::load(&self.media, w, &piece.element) {
                let newer = piece.element.base.create_tid.get();
                let cut = near()
                    .filter(|p| p.start > at && p.element.base.create_tid.get() > newer)
                    .map(|p| p.start)
                    .min();
                let end = piece.end.min(size).min(cut.unwrap_or(u64::MAX));
                return (end, Stretch::Data(record, piece.start));
            }
        }
        let end = over.iter().map(|p| p.end).min().unwrap_or(size);
        (end.min(starts.unwrap_or(u64::MAX)).min(size), Stretch::Lost)
    }

    fn child_nodes(&self, node: NodeId) -> vfs::Result<Vec<(Vec<u8>, NodeId, Kind)>> {
        let NodeId([_, _, tag]) = node;
        Ok(match (tag, object_id(node)) {
            (TOP, _) => {
                let pfs = |&pfs: &u16| {
                    (format!("PFS{pfs:05}").into_bytes(), node_of((pfs, OBJ_ROOT)), Kind::Directory)
                };
                let lost = (!self.orphans.is_empty())
                    .then(|| (b"lost+found".to_vec(), NodeId([0, 0, LOST_FOUND]), Kind::Directory));
                self.roots.iter().map(pfs).chain(lost).collect()
            }
            (LOST_FOUND, _) => {
                let name = |&(pfs, id): &Id| -> String { format!("{pfs:05}-{id:016x}") };
                let orphans = self.orphans.iter();
                orphans.map(|o| (name(o).into_bytes(), node_of(*o), Kind::Unknown)).collect()
            }
            (_, Some(id)) => {
                let children = self.children.get(&id).into_iter().flatten();
                let child = |c: &Child| (c.name.clone(), node_of(c.target), kind_of(ObjType(c.obj_type)));
                children.map(child).collect()
            }
            _ => return Err(Errno::ESTALE.into()),
        })
    }
}

enum Stretch {
    Hole,
    Lost,
    /// A record, and where in the file it begins.
    Data(Record, u64),
}

/// A record of file data.
#[derive(Clone, Copy)]
struct Piece {
    start: u64,
    end: u64,
    element: Element,
}

impl Piece {
    fn of(e: &Element) -> Self {
        let end = u64::try_from(e.base.key.get()).unwrap_or(0);
        let len = u64::try_from(e.as_leaf().data_len.get()).unwrap_or(0);
        Self { start: end.saturating_sub(len), end, element: *e }
    }
}

fn object_id(NodeId([obj_id, pfs, tag]): NodeId) -> Option<Id> {
    (tag == 0).then_some((pfs as u16, obj_id as i64))
}

impl vfs::FileSystem for Salvage {
    fn root(&self) -> NodeId {
        NodeId([0, 0, TOP])
    }

    fn statfs(&self, _: &mut Call<'_>) -> vfs::Result<StatFs> {
        let mut figures = StatFs::new("hammer");
        figures.name_max_bytes = MAX_NAME as u32;
        figures.files = self.report.records;
        Ok(figures)
    }

    fn getattr(&self, c: &mut Call<'_>, node: NodeId) -> vfs::Result<Attr> {
        Ok(self.attr(c.wait, node))
    }

    fn nresolve(&self, c: &mut Call<'_>, dir: NodeId, name: vfs::Name<'_>) -> vfs::Result<Attr> {
        let children = self.child_nodes(dir)?;
        let found = children.iter().find(|(n, ..)| n == name.as_bytes()).ok_or(Errno::ENOENT)?;
        Ok(self.attr(c.wait, found.1))
    }

    fn nlookupdotdot(&self, c: &mut Call<'_>, dir: NodeId) -> vfs::Result<Attr> {
        let id = object_id(dir).filter(|id| id.1 != OBJ_ROOT && !self.orphans.contains(id));
        let parent = id.and_then(|id| {
            let names = |children: &Vec<Child>| children.iter().any(|c| c.target == id);
            self.children.iter().find(|(_, children)| names(children)).map(|(dir, _)| node_of(*dir))
        });
        Ok(self.attr(c.wait, parent.unwrap_or(NodeId([0, 0, TOP]))))
    }

    fn readlink(&self, c: &mut Call<'_>, node: NodeId, out: &mut vfs::LinkSink<'_>) -> vfs::Result<()> {
        let id = object_id(node).ok_or(Errno::EINVAL)?;
        let inode = self.inode(c.wait, id);
        if inode.obj_type != ObjType::SYMLINK.0 {
            return Err(Errno::EINVAL.into());
        }
        let long = self.records.get(&key(id, LOCALIZE_MISC, RecType::FIX, FIX_KEY_SYMLINK));
        match (inode.size.get(), long) {
            (size, _) if (1..=SYMLINK_INLINE as u64).contains(&size) => {
                out(inode.symlink.get(..size as usize).unwrap_or_default());
            }
            (_, Some(e)) => Record::load(&self.media, c.wait, e)?.slices().for_each(out),
            _ => return Err(vfs::Error::new(Errno::EIO).because("the target of the link is lost")),
        }
        Ok(())
    }

    fn open(&self, _: &mut Call<'_>, node: NodeId, how: Access) -> vfs::Result<Opened> {
        match how {
            Access::Read => Ok(Opened { open: OpenId(0), node }),
            _ => Err(Errno::EROFS.into()),
        }
    }

    fn close(&self, _: OpenId) {}

    fn read(
        &self,
        c: &mut Call<'_>,
        node: NodeId,
        offset: u64,
        len: u64,
        out: &mut vfs::ReadSink<'_>,
    ) -> vfs::Result<u64> {
        static ZEROS: [u8; BUFFER_SIZE] = [0; BUFFER_SIZE];
        let id = object_id(node).ok_or(Errno::EISDIR)?;
        let inode = self.inode(c.wait, id);
        match kind_of(ObjType(inode.obj_type)) {
            Kind::Regular => {}
            Kind::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EINVAL.into()),
        }
        let size = inode.size.get();
        let end = offset.saturating_add(len).min(size);
        let mut at = offset;
        while at < end {
            let (upto, found) = self.stretch(c.wait, id, at, size);
            let upto = upto.clamp(at + 1, end.max(at + 1));
            if let Stretch::Data(record, start) = found {
                let mut position = start;
                for slice in record.slices() {
                    let (from, to) = (position.max(at), (position + slice.len() as u64).min(upto));
                    let piece = from.checked_sub(position).zip(to.checked_sub(position));
                    let piece =
                        piece.and_then(|(a, b)| slice.get(a as usize..b as usize)).unwrap_or_default();
                    position += slice.len() as u64;
                    at += piece.len() as u64;
                    if !piece.is_empty() && out(piece).is_break() {
                        return Ok(at - offset);
                    }
                }
                // A record is as long as it says; but never stay where we are.
                at = at.max(upto);
                continue;
            }
            while at < upto {
                let piece = ZEROS.get(..(upto - at).min(BUFFER_SIZE as u64) as usize).unwrap_or_default();
                at += piece.len() as u64;
                if out(piece).is_break() {
                    return Ok(at - offset);
                }
            }
        }
        Ok(at.saturating_sub(offset))
    }

    fn next_data(&self, c: &mut Call<'_>, node: NodeId, offset: u64) -> vfs::Result<Option<Range<u64>>> {
        let id = object_id(node).ok_or(Errno::EISDIR)?;
        let size = self.inode(c.wait, id).size.get();
        let mut at = offset;
        while at < size {
            let (end, found) = self.stretch(c.wait, id, at, size);
            match found {
                Stretch::Data(..) => return Ok(Some(at..end.max(at + 1))),
                _ => at = end.max(at + 1),
            }
        }
        Ok(None)
    }

    fn readdir(
        &self,
        _: &mut Call<'_>,
        dir: NodeId,
        cookie: u64,
        out: &mut vfs::DirSink<'_>,
    ) -> vfs::Result<()> {
        let parent = (b"..".to_vec(), NodeId([0, 0, TOP]), Kind::Directory);
        let dots = [(b".".to_vec(), dir, Kind::Directory), parent];
        let all = dots.into_iter().chain(self.child_nodes(dir)?);
        let skip = usize::try_from(cookie).unwrap_or(usize::MAX);
        for (i, (name, node, kind)) in (0u64..).zip(all).skip(skip) {
            let NodeId([fileid, ..]) = node;
            let entry = Entry { name: &name, node, kind, fileid, next: i + 1 };
            if out(entry) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}
