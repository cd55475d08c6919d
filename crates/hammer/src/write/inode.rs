//! Inodes: found, made, changed, destroyed.

use dfly_hal::Wait;
use dfly_vfs as vfs;
use dfly_vfs::{Attr, DeviceNumber, Errno, FileFlags, SetAttr};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::op::Op;
use super::records::History;
use crate::error::{Error, Structure};
use crate::object::ObjectId;
use crate::ondisk::Offset;
use crate::ondisk::node::{Element, Key, Tid};
use crate::ondisk::record::{
    CAP_HASH_ALG1, CAP_LOCAL_ENTRIES, InodeData, LOCALIZE_INODE, LOCALIZE_MISC, ObjType, RecType,
};

/// Records that one operation ends at most: more are ended by several.
pub(super) const MOST_RECORDS: usize = 2000;

/// A live object, as an operation found it.
#[derive(Clone, Copy)]
pub(crate) struct Live {
    pub(crate) id: ObjectId,
    pub(crate) inode: InodeData,
    element: Element,
}

/// What there is to say about a new object.
pub(crate) struct Birth<'a> {
    pub(crate) obj_type: ObjType,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) device: DeviceNumber,
    /// A symlink's target.
    pub(crate) target: &'a [u8],
}

impl Live {
    pub(crate) fn obj_type(&self) -> ObjType {
        ObjType(self.inode.obj_type)
    }

    pub(crate) fn history(&self) -> History {
        History::of(&self.inode)
    }

    pub(crate) fn flags(&self) -> FileFlags {
        FileFlags::from_bits_retain(self.inode.uflags.get())
    }
}

impl Op<'_, '_> {
    /// The object with this id, if it lives. May block.
    pub(crate) fn object(&self, w: &mut dyn Wait, id: ObjectId) -> Result<Option<Live>, Error> {
        let key = id.key(LOCALIZE_INODE, RecType::INODE, 0);
        let Some(element) = self.find(w, &key)? else { return Ok(None) };
        let data = self.data(w, &element)?;
        let at = Offset(element.as_leaf().data_offset.get());
        let inode = InodeData::read_from_bytes(&data)
            .map_err(|_| Error::corrupt(Structure::Inode, at, "inode has an impossible length"))?;
        Ok(Some(Live { id, inode, element }))
    }

    /// The object behind a node of the current view. May block.
    pub(crate) fn living(&self, w: &mut dyn Wait, id: ObjectId) -> vfs::Result<Live> {
        if id.view != crate::View::Current {
            return Err(Errno::EROFS.into());
        }
        // Mirroring alone writes to a slave. The original refuses only paths that lead there by a link.
        if id.pfs != 0
            && crate::pfs::load(self.media, w, id.pfs)?.is_none_or(|p| p.is_slave() || p.is_deleted())
        {
            return Err(Errno::EROFS.into());
        }
        Ok(self.object(w, id)?.ok_or(Errno::ESTALE)?)
    }

    /// Makes an object, whose entry in `dir` comes next. May block.
    pub(crate) fn give_birth(
        &mut self,
        w: &mut dyn Wait,
        dir: &Live,
        birth: &Birth<'_>,
    ) -> vfs::Result<ObjectId> {
        let id = dir.id.sibling(self.new_object_number()?);
        let mut inode = InodeData::new_zeroed();
        inode.version = 1.into();
        inode.mode = (birth.mode & 0o7777).into();
        let inherited = FileFlags::NOHISTORY | FileFlags::UF_NODUMP;
        inode.uflags = (dir.flags() & inherited).bits().into();
        inode.rmajor = birth.device.major.into();
        inode.rminor = birth.device.minor.into();
        let now = self.now_us.into();
        (inode.ctime, inode.mtime, inode.atime) = (now, now, now);
        inode.parent_obj_id = dir.id.obj_id.into();
        inode.uid.id = birth.uid.into();
        inode.gid = dir.inode.gid;
        inode.obj_type = birth.obj_type.0;
        if birth.obj_type == ObjType::DIRECTORY {
            inode.cap_flags = CAP_LOCAL_ENTRIES | CAP_HASH_ALG1;
        }
        inode.nlinks = 1.into();
        inode.size = (birth.target.len() as u64).into();
        match inode.symlink.get_mut(..birth.target.len()) {
            Some(short) => short.copy_from_slice(birth.target),
            None => {
                let key = id.misc_key(RecType::FIX, crate::ondisk::record::FIX_KEY_SYMLINK);
                self.put(w, &key, birth.obj_type.0, birth.target)?;
            }
        }
        let key = id.key(LOCALIZE_INODE, RecType::INODE, 0);
        self.put(w, &key, birth.obj_type.0, inode.as_bytes())?;
        self.changes.figures.inodes += 1;
        Ok(id)
    }

    /// Makes `inode` the object's. A change of no more than mtime and atime is made in place, and is not history. May
    /// block.
    pub(crate) fn change(&mut self, w: &mut dyn Wait, object: &Live, inode: &InodeData) -> Result<(), Error> {
        let (old, new) = (object.inode.as_bytes(), inode.as_bytes());
        if old == new {
            return Ok(());
        }
        let (old, _) = old.split_at(InodeData::CRC_LEN);
        let (new_start, times) = new.split_at(InodeData::CRC_LEN);
        if old != new_start {
            return self.replace(w, &object.element, new, object.history());
        }
        let at = Offset(object.element.as_leaf().data_offset.get());
        let outside = Error::OutOfRange { structure: Structure::Inode, at };
        self.write_bytes(w, at.checked_add(InodeData::CRC_LEN as u64).ok_or(outside)?, times)
    }

    /// Marks a directory's contents as changed now. May block.
    pub(crate) fn touch(&mut self, w: &mut dyn Wait, dir: ObjectId) -> vfs::Result<()> {
        // It may have got a new version within this operation.
        let dir = self.object(w, dir)?.ok_or(Errno::ESTALE)?;
        let mut inode = dir.inode;
        inode.mtime = self.now_us.into();
        Ok(self.change(w, &dir, &inode)?)
    }

    /// Ends an object that no entry names any more, or, of one with very many records, as many as one operation may.
    /// Returns whether that is all. May block.
    pub(crate) fn destroy(&mut self, w: &mut dyn Wait, object: &Live) -> Result<bool, Error> {
        self.open_reserve();
        let begin = object.id.key(LOCALIZE_MISC, RecType(0), i64::MIN).at(Tid::MIN);
        let end = Key { rec_type: u16::MAX, key: i64::MAX, ..begin };
        let records = self.live(w, &begin, &end, MOST_RECORDS)?;
        for e in &records {
            self.end(w, e, object.history())?;
        }
        if records.len() == MOST_RECORDS {
            return Ok(false);
        }
        self.end(w, &object.element, object.history())?;
        self.changes.figures.inodes -= 1;
        Ok(true)
    }

    /// Makes attributes those that `change` has led to, but the size. May block.
    pub(crate) fn set_attributes(
        &mut self,
        w: &mut dyn Wait,
        object: &Live,
        change: &SetAttr,
        new: &Attr,
    ) -> Result<(), Error> {
        let mut inode = object.inode;
        inode.mode = (new.mode & 0o7777).into();
        inode.uflags = new.flags.bits().into();
        inode.uid.id = new.uid.into();
        inode.gid.id = new.gid.into();
        if inode.as_bytes() != object.inode.as_bytes() {
            inode.ctime = self.now_us.into();
        }
        let micros = |t: vfs::Timestamp| u64::try_from(t.as_micros()).unwrap_or(0);
        if change.mtime.is_some() {
            inode.mtime = micros(new.mtime).into();
        }
        if change.atime.is_some() {
            inode.atime = micros(new.atime).into();
        }
        self.change(w, object, &inode)
    }

    /// A number for a new object: above all others, and never used again.
    fn new_object_number(&mut self) -> Result<i64, Error> {
        let last = &mut self.changes.figures.last_tid;
        let number = i64::try_from(last.0 + 1).map_err(|_| Error::NoSpace)?;
        *last = Tid(last.0 + 1);
        Ok(number)
    }
}
