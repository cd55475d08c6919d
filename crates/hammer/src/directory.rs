//! Directories: names lead to objects.

use dfly_hal::Wait;

use crate::btree::Scan;
use crate::error::{Error, Structure};
use crate::media::Media;
use crate::namekey::NameHash;
use crate::object::{Object, ObjectId};
use crate::ondisk::MAX_NAME;
use crate::ondisk::node::{Element, Tid};
use crate::ondisk::record::{CAP_LOCAL_ENTRIES, DirentHead, LOCALIZE_INODE, LOCALIZE_MISC, ObjType, RecType};
use crate::record::Record;

/// An entry of a directory.
pub(crate) struct Dirent {
    record: Record,
    /// Its key: also the cookie to continue behind it.
    pub(crate) key: i64,
    /// Type of the object that it names.
    pub(crate) obj_type: ObjType,
    /// The object that it names.
    pub(crate) obj_id: i64,
}

impl Dirent {
    fn load(media: &Media, w: &mut dyn Wait, e: &Element) -> Result<Self, Error> {
        let record = Record::load(media, w, e)?;
        let head: &DirentHead = record.view()?;
        let obj_id = head.obj_id.get();
        let name_len = record.bytes()?.len() - size_of::<DirentHead>();
        if !(1..=MAX_NAME).contains(&name_len) {
            return Err(Error::corrupt(Structure::Dirent, record.at(), "name has an impossible length"));
        }
        Ok(Self { record, key: e.base.key.get(), obj_type: ObjType(e.base.obj_type), obj_id })
    }

    pub(crate) fn name(&self) -> &[u8] {
        let bytes = self.record.bytes().unwrap_or_default();
        bytes.get(size_of::<DirentHead>()..).unwrap_or_default()
    }
}

/// The entries of a directory from key `from` to key `to`, both included, as its view shows them.
pub(crate) struct Entries<'m> {
    media: &'m Media,
    scan: Scan<'m>,
}

impl<'m> Entries<'m> {
    /// May block.
    pub(crate) fn new(
        media: &'m Media,
        w: &mut dyn Wait,
        dir: &Object,
        at: Tid,
        keys: core::ops::RangeInclusive<i64>,
    ) -> Result<Self, Error> {
        let local = dir.inode.cap_flags & CAP_LOCAL_ENTRIES != 0;
        let domain = if local { LOCALIZE_INODE } else { LOCALIZE_MISC };
        let key = |k| dir.id.key(domain, RecType::DIRENTRY, k);
        Ok(Self { media, scan: Scan::new(media, w, &key(*keys.start()), &key(*keys.end()), at)? })
    }

    /// May block.
    pub(crate) fn next(&mut self, w: &mut dyn Wait) -> Result<Option<Dirent>, Error> {
        match self.scan.next(w)? {
            Some(e) => Dirent::load(self.media, w, &e).map(Some),
            None => Ok(None),
        }
    }
}

/// The object that `name` leads to, in the directory as it was `at` a time. May block.
pub(crate) fn lookup(
    media: &Media,
    w: &mut dyn Wait,
    dir: &Object,
    at: Tid,
    name: &[u8],
) -> Result<Option<ObjectId>, Error> {
    let hash = NameHash::from_cap_flags(dir.inode.cap_flags).ok_or(Error::corrupt(
        Structure::Inode,
        crate::ondisk::Offset(dir.id.obj_id as u64),
        "directory has an unknown hash",
    ))?;
    // A free key ends nothing: an entry may stand behind others that are history by now.
    let mut entries = Entries::new(media, w, dir, at, hash.keys(name))?;
    while let Some(entry) = entries.next(w)? {
        if entry.name() == name {
            return Ok(Some(dir.id.sibling(entry.obj_id)));
        }
    }
    Ok(None)
}
