//! What the disk remembers of an object: when each of its records came and went.

use dfly_hal::Wait;

use crate::btree::Cursor;
use crate::error::Error;
use crate::media::Media;
use crate::object::ObjectId;
use crate::ondisk::node::{Key, Tid};
use crate::ondisk::record::{LOCALIZE_INODE, LOCALIZE_MISC, RecType};

/// A version of a record of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Version {
    /// What kind of record.
    pub rec_type: RecType,
    /// Its key within the object and the kind: for file data, the offset behind its last byte.
    pub key: i64,
    /// The transaction that made it.
    pub created: Tid,
    /// When that was, in seconds since the epoch; 0 if the disk does not say.
    pub created_s: u32,
    /// The transaction that ended it, if one did.
    pub deleted: Option<Tid>,
    /// When that was, in seconds since the epoch; 0 if the disk does not say.
    pub deleted_s: u32,
}

/// Hands every version of every record of `id` to `out`, whatever its view, in the order of the tree: inodes first. For
/// a directory that includes its entries. May block.
pub(crate) fn versions(
    media: &Media,
    w: &mut dyn Wait,
    id: ObjectId,
    out: &mut dyn FnMut(Version),
) -> Result<(), Error> {
    for domain in [LOCALIZE_INODE, LOCALIZE_MISC] {
        let begin = id.key(domain, RecType(0), i64::MIN).at(Tid::MIN);
        let end = Key { rec_type: u16::MAX, key: i64::MAX, ..begin }.at(Tid::ZERO);
        let mut cursor = Cursor::seek(media, w, &begin)?;
        while let Some(e) = cursor.next(w)?.filter(|e| e.base.key() <= end) {
            let deleted = e.base.delete_tid.get();
            out(Version {
                rec_type: RecType(e.base.rec_type.get()),
                key: e.base.key.get(),
                created: Tid(e.base.create_tid.get()),
                created_s: e.as_leaf().create_ts.get(),
                deleted: (deleted != 0).then_some(Tid(deleted)),
                deleted_s: if deleted == 0 { 0 } else { e.as_leaf().delete_ts.get() },
            });
        }
    }
    Ok(())
}
