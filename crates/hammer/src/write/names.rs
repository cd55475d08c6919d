//! Directory entries: made, removed, moved.

use alloc::vec::Vec;

use dfly_hal::Wait;
use dfly_vfs as vfs;
use dfly_vfs::{Errno, FileFlags};
use zerocopy::{FromBytes, IntoBytes};

use super::inode::{Birth, Live};
use super::op::Op;
use crate::btree::Scan;
use crate::error::{Error, Structure};
use crate::extension::Extension;
use crate::namekey::NameHash;
use crate::object::ObjectId;
use crate::ondisk::Offset;
use crate::ondisk::node::{Element, Key, Tid};
use crate::ondisk::record::{CAP_LOCAL_ENTRIES, DirentHead, LOCALIZE_INODE, LOCALIZE_MISC, ObjType, RecType};

/// Directories that can lie in one another.
const MAX_PARENTS: usize = 4096;

/// Where an entry is, or could be.
enum Slot {
    /// The entry, and the object that it names.
    Taken(Element, ObjectId),
    /// The first free key.
    Free(Key),
}

/// What became of an object that lost a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// It has other names, or is gone.
    Done,
    /// It has no name any more, but contents that somebody uses, or too many to end them at once.
    Nameless(ObjectId),
}

impl Op<'_, '_> {
    fn slot(&self, w: &mut dyn Wait, dir: &Live, name: &[u8]) -> vfs::Result<Slot> {
        let at = Offset(dir.id.obj_id as u64);
        let unknown = Error::corrupt(Structure::Inode, at, "directory has an unknown hash");
        let hash = NameHash::from_cap_flags(dir.inode.cap_flags).ok_or(unknown)?;
        let keys = hash.keys(name);
        let (begin, end) = (entry_key(dir, *keys.start()), entry_key(dir, *keys.end()));
        let mut scan = Scan::new(self, w, &begin, &end, Tid::MAX)?;
        let mut free = *keys.start();
        while let Some(e) = scan.next(w)? {
            let data = self.data(w, &e)?;
            let head = DirentHead::ref_from_prefix(&data);
            let (head, found) =
                head.map_err(|_| Error::corrupt(Structure::Dirent, at, "entry is too short"))?;
            if found == name {
                return Ok(Slot::Taken(e, dir.id.sibling(head.obj_id.get())));
            }
            if e.base.key.get() == free {
                free += 1;
            }
        }
        if free > *keys.end() {
            return Err(Error::NoSpace.into());
        }
        Ok(Slot::Free(entry_key(dir, free)))
    }

    /// The directory `id`, to be changed. May block.
    fn directory(&self, w: &mut dyn Wait, id: ObjectId) -> vfs::Result<Live> {
        let dir = self.living(w, id)?;
        if dir.obj_type() != ObjType::DIRECTORY {
            return Err(Errno::ENOTDIR.into());
        }
        if dir.inode.nlinks.get() == 0 {
            return Err(Errno::ENOENT.into());
        }
        Ok(dir)
    }

    /// The entry `name` of `dir`, and its object. May block.
    fn entry(&self, w: &mut dyn Wait, dir: &Live, name: &[u8]) -> vfs::Result<(Element, Live)> {
        match self.slot(w, dir, name)? {
            Slot::Taken(e, id) => Ok((e, self.living(w, id)?)),
            Slot::Free(_) => Err(Errno::ENOENT.into()),
        }
    }

    fn put_entry(
        &mut self,
        w: &mut dyn Wait,
        key: &Key,
        to: ObjectId,
        obj_type: u8,
        name: &[u8],
    ) -> Result<(), Error> {
        let head = DirentHead {
            obj_id: to.obj_id.into(),
            localization: (u32::from(to.pfs) << 16).into(),
            reserved02: 0.into(),
        };
        let mut data = Vec::from(head.as_bytes());
        data.extend_from_slice(name);
        self.put(w, key, obj_type, &data)
    }

    /// A new object with its first name. May block.
    pub(crate) fn create(
        &mut self,
        w: &mut dyn Wait,
        dir: ObjectId,
        name: &[u8],
        birth: &Birth<'_>,
    ) -> vfs::Result<ObjectId> {
        let dir = self.directory(w, dir)?;
        let key = self.free_slot(w, &dir, name)?;
        let id = self.give_birth(w, &dir, birth)?;
        self.put_entry(w, &key, id, birth.obj_type.0, name)?;
        self.touch(w, dir.id)?;
        Ok(id)
    }

    fn free_slot(&self, w: &mut dyn Wait, dir: &Live, name: &[u8]) -> vfs::Result<Key> {
        // Such a name would never be looked up.
        if Extension::split(name).is_some() {
            return Err(Errno::EEXIST.into());
        }
        match self.slot(w, dir, name)? {
            Slot::Taken(..) => Err(Errno::EEXIST.into()),
            Slot::Free(key) => Ok(key),
        }
    }

    /// One more name for an object. May block.
    pub(crate) fn link(
        &mut self,
        w: &mut dyn Wait,
        id: ObjectId,
        dir: ObjectId,
        name: &[u8],
    ) -> vfs::Result<()> {
        let (dir, object) = (self.directory(w, dir)?, self.living(w, id)?);
        let key = self.free_slot(w, &dir, name)?;
        if object.obj_type() == ObjType::DIRECTORY || is_fixed(&object) {
            return Err(Errno::EPERM.into());
        }
        if id.pfs != dir.id.pfs {
            return Err(Errno::EXDEV.into());
        }
        if object.inode.nlinks.get() == 0 {
            return Err(Errno::ENOENT.into());
        }
        let mut inode = object.inode;
        inode.nlinks = inode.nlinks.get().checked_add(1).ok_or(Errno::EMLINK)?.into();
        inode.ctime = self.now_us.into();
        self.change(w, &object, &inode)?;
        self.put_entry(w, &key, id, inode.obj_type, name)?;
        self.touch(w, dir.id)
    }

    /// Takes a name away from what is no directory. May block.
    pub(crate) fn unlink(
        &mut self,
        w: &mut dyn Wait,
        dir: ObjectId,
        name: &[u8],
        is_open: &dyn Fn(ObjectId) -> bool,
    ) -> vfs::Result<Farewell> {
        self.open_reserve();
        let dir = self.directory(w, dir)?;
        let (entry, object) = self.entry(w, &dir, name)?;
        if object.obj_type() == ObjType::DIRECTORY {
            return Err(Errno::EISDIR.into());
        }
        if is_fixed(&object) {
            return Err(Errno::EPERM.into());
        }
        self.end(w, &entry, dir.history())?;
        self.touch(w, dir.id)?;
        self.lose_name(w, &object, is_open)
    }

    /// Removes an empty directory. May block.
    pub(crate) fn remove_directory(
        &mut self,
        w: &mut dyn Wait,
        dir: ObjectId,
        name: &[u8],
        is_open: &dyn Fn(ObjectId) -> bool,
    ) -> vfs::Result<Farewell> {
        self.open_reserve();
        let dir = self.directory(w, dir)?;
        let (entry, object) = self.entry(w, &dir, name)?;
        if object.obj_type() != ObjType::DIRECTORY {
            return Err(Errno::ENOTDIR.into());
        }
        if is_fixed(&object) {
            return Err(Errno::EPERM.into());
        }
        if !self.is_empty_directory(w, &object)? {
            return Err(Errno::ENOTEMPTY.into());
        }
        self.end(w, &entry, dir.history())?;
        self.touch(w, dir.id)?;
        self.lose_name(w, &object, is_open)
    }

    /// Gives an object another name; what had that name loses it. May block.
    pub(crate) fn rename(
        &mut self,
        w: &mut dyn Wait,
        (from_dir, from): (ObjectId, &[u8]),
        (to_dir, to): (ObjectId, &[u8]),
        is_open: &dyn Fn(ObjectId) -> bool,
    ) -> vfs::Result<Farewell> {
        let (from_dir, to_dir) = (self.directory(w, from_dir)?, self.directory(w, to_dir)?);
        if from_dir.id.pfs != to_dir.id.pfs {
            return Err(Errno::EXDEV.into());
        }
        let (entry, object) = self.entry(w, &from_dir, from)?;
        let is_directory = object.obj_type() == ObjType::DIRECTORY;
        if is_fixed(&object) {
            return Err(Errno::EPERM.into());
        }
        if Extension::split(to).is_some() {
            return Err(Errno::EEXIST.into());
        }
        if is_directory {
            self.check_not_below(w, &to_dir, object.id)?;
        }
        let mut farewell = Farewell::Done;
        let key = match self.slot(w, &to_dir, to)? {
            Slot::Free(key) => key,
            Slot::Taken(_, id) if id == object.id => return Ok(Farewell::Done),
            Slot::Taken(old, id) => {
                let old_object = self.living(w, id)?;
                match (is_directory, old_object.obj_type() == ObjType::DIRECTORY) {
                    (true, false) => return Err(Errno::ENOTDIR.into()),
                    (false, true) => return Err(Errno::EISDIR.into()),
                    (true, true) if !self.is_empty_directory(w, &old_object)? => {
                        return Err(Errno::ENOTEMPTY.into());
                    }
                    _ => {}
                }
                if is_fixed(&old_object) {
                    return Err(Errno::EPERM.into());
                }
                self.end(w, &old, to_dir.history())?;
                farewell = self.lose_name(w, &old_object, is_open)?;
                old.base.key()
            }
        };
        self.end(w, &entry, from_dir.history())?;
        self.put_entry(w, &key, object.id, object.inode.obj_type, to)?;
        let mut inode = object.inode;
        inode.parent_obj_id = to_dir.id.obj_id.into();
        inode.ctime = self.now_us.into();
        self.change(w, &object, &inode)?;
        self.touch(w, from_dir.id)?;
        if to_dir.id != from_dir.id {
            self.touch(w, to_dir.id)?;
        }
        Ok(farewell)
    }

    /// An object has lost one name: the last one is its end, unless somebody has it open. May block.
    fn lose_name(
        &mut self,
        w: &mut dyn Wait,
        object: &Live,
        is_open: &dyn Fn(ObjectId) -> bool,
    ) -> vfs::Result<Farewell> {
        let names = object.inode.nlinks.get();
        if names <= 1 && !is_open(object.id) && self.destroy(w, object)? {
            return Ok(Farewell::Done);
        }
        let mut inode = object.inode;
        inode.nlinks = names.saturating_sub(1).into();
        inode.ctime = self.now_us.into();
        self.change(w, object, &inode)?;
        Ok(if names <= 1 { Farewell::Nameless(object.id) } else { Farewell::Done })
    }

    fn is_empty_directory(&self, w: &mut dyn Wait, dir: &Live) -> Result<bool, Error> {
        let (begin, end) = (entry_key(dir, i64::MIN), entry_key(dir, i64::MAX));
        Ok(self.live(w, &begin, &end, 1)?.is_empty())
    }

    /// Refuses to put directory `moved` into itself or below. May block.
    fn check_not_below(&self, w: &mut dyn Wait, to: &Live, moved: ObjectId) -> vfs::Result<()> {
        let mut dir = *to;
        for _ in 0..MAX_PARENTS {
            if dir.id == moved {
                return Err(Errno::EINVAL.into());
            }
            let parent = dir.inode.parent_obj_id.get();
            if parent == 0 || dir.id.is_root() {
                return Ok(());
            }
            dir = self.living(w, dir.id.sibling(parent))?;
        }
        let at = Offset(to.id.obj_id as u64);
        Err(Error::corrupt(Structure::Inode, at, "directories lie in one another in a circle").into())
    }
}

/// Whether an object's names must stay.
fn is_fixed(object: &Live) -> bool {
    object.flags().intersects(FileFlags::IMMUTABLE | FileFlags::APPEND | FileFlags::NOUNLINK)
}

fn entry_key(dir: &Live, key: i64) -> Key {
    let local = dir.inode.cap_flags & CAP_LOCAL_ENTRIES != 0;
    dir.id.key(if local { LOCALIZE_INODE } else { LOCALIZE_MISC }, RecType::DIRENTRY, key)
}
