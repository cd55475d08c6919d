//! Objects: files, directories and the rest, as of a time.

use dfly_hal::Wait;
use dfly_vfs::{Attr, DeviceNumber, FileFlags, Kind, NodeId, Timestamp};

use crate::btree;
use crate::error::Error;
use crate::media::Media;
use crate::ondisk::node::{Key, Tid};
use crate::ondisk::record::{InodeData, LOCALIZE_INODE, LOCALIZE_MISC, OBJ_ROOT, ObjType, RecType};
use crate::record::Record;

/// The time that a view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// What is there now.
    Current,
    /// What was there when a transaction had just been made durable.
    AsOf(Tid),
}

impl View {
    /// The time that the tree is searched with.
    pub(crate) fn tid(self) -> Tid {
        match self {
            Self::Current => Tid::MAX,
            Self::AsOf(tid) => tid,
        }
    }
}

/// The name of an object within the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// The pseudo file system that it belongs to.
    pub pfs: u16,
    /// Its number there.
    pub obj_id: i64,
    /// The time at which it is looked at.
    pub view: View,
}

impl ObjectId {
    /// The root directory of a pseudo file system.
    pub const fn root(pfs: u16, view: View) -> Self {
        Self { pfs, obj_id: OBJ_ROOT, view }
    }

    pub(crate) fn is_root(self) -> bool {
        self.obj_id == OBJ_ROOT
    }

    /// Another object of the same pseudo file system, at the same time.
    pub const fn sibling(self, obj_id: i64) -> Self {
        Self { obj_id, ..self }
    }

    /// The key of a record of this object.
    pub(crate) fn key(self, domain: u32, rec_type: RecType, key: i64) -> Key {
        Key {
            localization: u32::from(self.pfs) << 16 | domain,
            obj_id: self.obj_id,
            rec_type: rec_type.0,
            key,
            create_tid: Tid::ZERO,
        }
    }

    /// The key of one of its records in the domain of data.
    pub(crate) fn misc_key(self, rec_type: RecType, key: i64) -> Key {
        self.key(LOCALIZE_MISC, rec_type, key)
    }
}

impl From<ObjectId> for NodeId {
    /// Object, pseudo file system, time; a time of 0 stands for now.
    fn from(id: ObjectId) -> Self {
        let tid = match id.view {
            View::Current => 0,
            View::AsOf(tid) => tid.0,
        };
        Self([id.obj_id as u64, id.pfs.into(), tid])
    }
}

impl From<NodeId> for ObjectId {
    fn from(NodeId([obj_id, pfs, tid]): NodeId) -> Self {
        let view = if tid == 0 { View::Current } else { View::AsOf(Tid(tid)) };
        Self { pfs: pfs as u16, obj_id: obj_id as i64, view }
    }
}

/// An object and its inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) inode: InodeData,
    /// The number that programs see.
    fileid: u64,
}

impl Object {
    /// Reads the inode of `id`, if the view has one. May block.
    pub(crate) fn load(media: &Media, w: &mut dyn Wait, id: ObjectId) -> Result<Option<Self>, Error> {
        let key = id.key(LOCALIZE_INODE, RecType::INODE, 0);
        let Some(e) = btree::lookup(media, w, &key, id.view.tid())? else { return Ok(None) };
        let record = Record::load(media, w, &e)?;
        Ok(Some(Self::of(id, *record.view()?)))
    }

    /// The object that an inode describes.
    pub(crate) fn of(id: ObjectId, inode: InodeData) -> Self {
        Self { id, inode, fileid: id.obj_id as u64 }
    }

    /// What stands in for an object whose directory entry outlived its inode, as pruning at the wrong boundary leaves
    /// it: as in the original a named pipe whose every number is 0, which programs that copy trees pass over.
    pub(crate) fn missing(id: ObjectId) -> Self {
        let mut inode: InodeData = zerocopy::FromZeros::new_zeroed();
        inode.obj_type = ObjType::FIFO.0;
        Self { id, inode, fileid: 0 }
    }

    pub(crate) fn obj_type(&self) -> ObjType {
        ObjType(self.inode.obj_type)
    }

    /// The directory that a directory lies in, itself where its inode names none.
    pub(crate) fn parent(&self) -> ObjectId {
        match self.inode.parent_obj_id.get() {
            0 => self.id,
            parent => self.id.sibling(parent),
        }
    }

    /// Its attributes. In an untrusted view the times that change in place are not vouched for, and ctime stands in.
    pub(crate) fn attr(&self, fsid: u64, times: InPlaceTimes) -> Attr {
        let inode = &self.inode;
        let time = |us: u64| Timestamp::from_micros(i64::try_from(us).unwrap_or(i64::MAX));
        let mut attr = Attr::new(self.id.into(), kind_of(self.obj_type()));
        attr.mode = inode.mode.get() & 0o7777;
        attr.uid = inode.uid.id.get();
        attr.gid = inode.gid.id.get();
        attr.nlink = inode.nlinks.get();
        attr.size = inode.size.get();
        attr.bytes = stored_bytes(attr.size);
        attr.flags = FileFlags::from_bits_retain(inode.uflags.get());
        attr.ctime = time(inode.ctime.get());
        (attr.mtime, attr.atime) = match (times, self.id.view) {
            (InPlaceTimes::Trusted, View::Current) => (time(inode.mtime.get()), time(inode.atime.get())),
            _ => (attr.ctime, attr.ctime),
        };
        if matches!(self.obj_type(), ObjType::CHAR_DEVICE | ObjType::BLOCK_DEVICE) {
            attr.rdev = DeviceNumber { major: inode.rmajor.get(), minor: inode.rminor.get() };
        }
        attr.fileid = self.fileid;
        attr.fsid = fsid;
        attr.io_bytes = crate::ondisk::SMALL_BLOCK as u32;
        attr
    }
}

/// Whether mtime and atime, which change in place and without history, belong to the state that is shown. After a crash
/// they may be newer; in a view of the past they always may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InPlaceTimes {
    Trusted,
    Untrusted,
}

/// The space that a file of `size` bytes without holes takes.
fn stored_bytes(size: u64) -> u64 {
    use crate::ondisk::{BLOCK_DEMARC, LARGE_BLOCK, SMALL_BLOCK};
    let unit = match size {
        0..=8192 => 16,
        _ if size <= BLOCK_DEMARC => SMALL_BLOCK,
        _ => LARGE_BLOCK,
    };
    size.checked_next_multiple_of(unit).unwrap_or(size)
}

pub(crate) fn kind_of(t: ObjType) -> Kind {
    match t {
        ObjType::DIRECTORY => Kind::Directory,
        ObjType::REGULAR | ObjType::DBFILE => Kind::Regular,
        ObjType::FIFO => Kind::Fifo,
        ObjType::CHAR_DEVICE => Kind::CharDevice,
        ObjType::BLOCK_DEVICE => Kind::BlockDevice,
        ObjType::SYMLINK => Kind::Symlink,
        ObjType::SOCKET => Kind::Socket,
        _ => Kind::Unknown,
    }
}
