//! One record of the tree, and where its bytes come from.

use std::fmt;
use std::sync::Arc;

use dfly_hammer::crc::Flavor;
use dfly_hammer::ondisk::node::{Key, Tid};
use dfly_hammer::ondisk::record::{InodeData, ObjType, RecType};
use dfly_hammer::ondisk::{SMALL_BLOCK, Zone};

/// Fills a buffer with the bytes of a file from an offset on.
pub(crate) type Source = Arc<dyn Fn(u64, &mut [u8]) -> std::io::Result<()> + Send + Sync>;

/// A record as it will stand in a leaf.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its place in the tree, creation included.
    pub key: Key,
    /// When it was deleted; [`Tid::ZERO`] if it lives.
    pub delete_tid: Tid,
    /// Type of the object, or of a directory entry's target.
    pub obj_type: ObjType,
    /// When it was created, in seconds since the epoch.
    pub create_ts: u32,
    /// When it was deleted, in seconds since the epoch.
    pub delete_ts: u32,
    /// What it carries.
    pub data: Data,
}

/// The bytes of a record: at hand, or made when the image is written.
#[derive(Clone)]
pub struct Data(Kind);

#[derive(Clone)]
enum Kind {
    Bytes(Arc<[u8]>),
    Made { source: Source, offset: u64, filled: usize, len: usize },
}

impl Data {
    /// These bytes.
    pub fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self(Kind::Bytes(bytes.as_ref().into()))
    }

    /// `filled` bytes of a source from `offset` on, then zeros up to `len`.
    pub(crate) fn made(source: Source, offset: u64, filled: usize, len: usize) -> Self {
        Self(Kind::Made { source, offset, filled, len })
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.len(),
            Kind::Made { len, .. } => *len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub fn get(&self) -> std::io::Result<Arc<[u8]>> {
        match &self.0 {
            Kind::Bytes(bytes) => Ok(Arc::clone(bytes)),
            Kind::Made { source, offset, filled, len } => {
                let mut bytes = vec![0; *len];
                source(*offset, &mut bytes[..*filled])?;
                Ok(bytes.into())
            }
        }
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl Record {
    /// A live record without data of a type; its times are 0.
    pub fn new(key: Key, obj_type: ObjType, data: Data) -> Self {
        Self { key, delete_tid: Tid::ZERO, obj_type, create_ts: 0, delete_ts: 0, data }
    }

    /// The zone that its data belongs to.
    pub(crate) fn zone(&self) -> Zone {
        match RecType(self.key.rec_type) {
            RecType::DATA | RecType::DB if self.data.len() >= SMALL_BLOCK as usize => Zone::LARGE_DATA,
            RecType::DATA | RecType::DB => Zone::SMALL_DATA,
            _ => Zone::META,
        }
    }
}

/// The checksum that a leaf stores for a record's data.
pub(crate) fn data_crc(rec_type: u16, data: &[u8], flavor: Flavor) -> u32 {
    match (RecType(rec_type), data.len()) {
        (_, 0) => 0,
        (RecType::INODE, 128) => flavor.of(&data[..InodeData::CRC_LEN]),
        (RecType::INODE, _) => 0,
        _ => flavor.of(data),
    }
}
