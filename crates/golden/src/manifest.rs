//! What a manifest says. The golden folder's README explains the fields and how each was obtained.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// The manifest of one image: what was done to it, and what the real kernel code then read from it.
///
/// A field that an image has no facts for is empty, zero or `None`.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The name of the image.
    pub image: String,
    /// The version of the file system, 1 to 7.
    pub hammer_version: u32,
    /// The packed volumes, in the order of their numbers.
    pub image_files: Vec<ImageFile>,
    /// The volume after the real recovery (crash images).
    pub recovered_image: Option<RecoveredImage>,
    /// Mount options that differ from the default, such as `nohistory`.
    #[serde(default)]
    pub mount_options: Vec<String>,
    /// The operations that made the content, in order; the golden folder's README has the grammar.
    #[serde(default)]
    pub operations: Vec<String>,
    /// The operations that completed before the crash, in order; operation k is entry k - 1.
    #[serde(default)]
    pub operations_completed: Vec<String>,
    /// The tree as it is now, read through a read-write mount.
    #[serde(default)]
    pub files: Listing,
    /// What the real `hammer` tools found.
    pub tool_checks: Option<ToolChecks>,

    /// Reads of parts of huge sparse files: by the root of the view, such as `/@@0x0000000100008020`.
    #[serde(default, deserialize_with = "in_order")]
    pub range_reads: Vec<(String, Vec<RangeRead>)>,
    /// Sizes of huge sparse files in bytes, by path.
    #[serde(default, deserialize_with = "in_order")]
    pub sizes: Vec<(String, u64)>,

    /// The tree that a read-only mount of the crashed image shows.
    pub view_readonly_mount_of_crashed_image: Option<Vec<Entry>>,
    /// The tree after the real read-write recovery of the crashed image.
    pub view_after_rw_recovery: Option<Vec<Entry>>,
    /// The tree after a recovery that was not killed (`crash-in-recovery-N`).
    pub view_uninterrupted_recovery: Option<Vec<Entry>>,
    /// The content at the last `sync` before the crash.
    pub state_at_last_sync: Option<Vec<ModelEntry>>,
    /// The content after the last operation that completed before the crash.
    pub state_newest_model: Option<Vec<ModelEntry>>,
    /// Files made durable by `fsync` after the last `sync`.
    #[serde(default)]
    pub fsynced_since_last_sync: Vec<FsyncedFile>,
    /// What the real kernel logged during recovery.
    #[serde(default)]
    pub kernel_recovery_log: Vec<String>,

    #[serde(default, deserialize_with = "in_order")]
    views: Vec<(String, Vec<Entry>)>,
    #[serde(default)]
    asof: AsOf,
}

impl Manifest {
    /// Every tree that can be read without changing the image, each with all of its entries: the current one or the
    /// read-only view of a crashed image, then PFS roots and as-of views.
    ///
    /// `btree-deep` and `hugefile` have none: see [`files`](Self::files) and [`range_reads`](Self::range_reads).
    pub fn views(&self) -> Vec<View<'_>> {
        let mut views = Vec::new();
        if let Listing::Full(entries) = &self.files {
            views.push(View { root: "/".into(), times: Times::OnMedia, entries });
        }
        if let Some(entries) = &self.view_readonly_mount_of_crashed_image {
            views.push(View { root: "/".into(), times: Times::CtimeInAll, entries });
        }
        for (root, entries) in &self.views {
            let times = if root.contains("@@0x") { Times::CtimeInAll } else { Times::OnMedia };
            views.push(View { root: root.clone(), times, entries });
        }
        for AsOfListing { tid, files } in &self.asof.0 {
            views.push(View { root: format!("/@@{tid:#018x}"), times: Times::CtimeInAll, entries: files });
        }
        views
    }
}

/// A tree as the real code read it.
#[derive(Debug, Clone)]
pub struct View<'m> {
    /// The path of its root: `/`, or with HAMMER's path extension, such as `/@@0x0000000100030110:00002`.
    pub root: String,
    /// What the three times of its entries are.
    pub times: Times,
    /// Each path in it, the root first; within a directory in the order of `readdir`.
    pub entries: &'m [Entry],
}

/// Which times `getattr` reported: on a read-only mount and in an as-of view the real code shows `ctime` for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The three times as they are on the medium.
    OnMedia,
    /// All three are `ctime`.
    CtimeInAll,
}

/// One packed volume.
#[derive(Debug, Clone, Deserialize)]
pub struct ImageFile {
    /// The file in the golden folder.
    pub file: String,
    /// Size when unpacked, in bytes.
    pub raw_size: u64,
    /// SHA-256 when unpacked, in hex.
    pub raw_sha256: String,
}

/// The volume after the real recovery.
#[derive(Debug, Clone, Deserialize)]
pub struct RecoveredImage {
    /// The file in the golden folder, where it is kept.
    pub file: Option<String>,
    /// SHA-256 when unpacked, in hex.
    pub raw_sha256: String,
}

/// The kind of a file-system object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Kind {
    /// A directory.
    #[serde(rename = "dir")]
    Directory,
    /// A regular file.
    #[serde(rename = "file")]
    Regular,
    /// A symbolic link.
    #[serde(rename = "lnk")]
    Symlink,
    /// A named pipe.
    #[serde(rename = "fifo")]
    Fifo,
    /// A character device.
    #[serde(rename = "chr")]
    CharDevice,
    /// A block device.
    #[serde(rename = "blk")]
    BlockDevice,
}

/// One path, as `readdir`, `getattr`, `readlink` and `read` of the real code showed it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// The path from the root of the view.
    pub path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Object id (inode number).
    #[serde(deserialize_with = "hex")]
    pub obj_id: u64,
    /// Permission bits, without the file type.
    #[serde(deserialize_with = "octal")]
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub nlink: u64,
    /// Size in bytes; 0 for a directory.
    pub size: u64,
    /// BSD file flags (`chflags`).
    pub uflags: u32,
    /// Modification time, microseconds since 1970.
    pub mtime_us: u64,
    /// Change time, microseconds since 1970.
    pub ctime_us: u64,
    /// Access time, microseconds since 1970.
    pub atime_us: u64,
    /// Major number of a device.
    pub rmajor: Option<u32>,
    /// Minor number of a device.
    pub rminor: Option<u32>,
    /// What a symbolic link says.
    pub target: Option<String>,
    /// SHA-256 of a regular file's content, in hex.
    pub sha256: Option<String>,
}

/// The current tree.
#[derive(Debug, Clone, Default)]
pub enum Listing {
    /// Each path with everything about it.
    Full(Vec<Entry>),
    /// Each path with a few facts (`btree-deep`).
    Compact(Vec<(String, CompactEntry)>),
    /// The manifest has no such list.
    #[default]
    None,
}

/// One path of `btree-deep`: a directory has only its object id, a file has mode 0644, uid 0 and gid 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompactEntry {
    /// A directory.
    Directory {
        /// Object id.
        obj_id: u64,
    },
    /// A regular file.
    Regular {
        /// Object id.
        obj_id: u64,
        /// Hard links.
        nlink: u64,
        /// Size in bytes.
        size: u64,
        /// The first 16 hex digits of the content's SHA-256.
        sha256_start: String,
    },
}

/// A read of part of a file. Bytes never written are zero; a read stops at the end of the file.
#[derive(Debug, Clone, Deserialize)]
pub struct RangeRead {
    /// The path from the root of the view.
    pub path: String,
    /// Where it starts, in bytes.
    pub read_offset: u64,
    /// Bytes asked for.
    pub requested: u64,
    /// Bytes returned.
    pub returned: u64,
    /// SHA-256 of what was returned, in hex.
    pub sha256: String,
}

/// One path of the generator's own model of the operations.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ModelEntry {
    /// The path.
    pub path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Size in bytes of a regular file.
    pub size: Option<u64>,
    /// SHA-256 of a regular file's content, in hex.
    pub sha256: Option<String>,
}

/// A file that an `fsync` made durable.
#[derive(Debug, Clone, Deserialize)]
pub struct FsyncedFile {
    /// The path.
    pub path: String,
    /// Size in bytes at the last `fsync`.
    pub size: u64,
    /// SHA-256 of the content at the last `fsync`, in hex.
    pub sha256: String,
    /// The number of the `fsync` in the operations, from 1.
    pub after_op: usize,
    /// What the real recovery made of it, in words.
    pub recovered_state: String,
}

/// What the real `hammer` tools found on the image.
#[derive(Debug, Clone, Deserialize)]
pub struct ToolChecks {
    /// What `hammer show` found.
    pub show: ShowCheck,
}

/// What `hammer show` found on the image.
#[derive(Debug, Clone, Deserialize)]
pub struct ShowCheck {
    /// Leaf elements of the B-tree.
    pub elements: u64,
    /// Nodes of the B-tree.
    pub nodes: u64,
    /// The depth of the deepest leaf; 0 when the root is a leaf.
    pub max_depth: u32,
    /// Lines with a bad CRC.
    pub bad_crc_lines: u64,
}

/// As-of listings: a list of objects in one manifest, an object by TID in others.
#[derive(Debug, Clone, Default)]
struct AsOf(Vec<AsOfListing>);

#[derive(Debug, Clone, Deserialize)]
struct AsOfListing {
    #[serde(deserialize_with = "hex")]
    tid: u64,
    files: Vec<Entry>,
}

fn parse_hex<E: Error>(text: &str) -> Result<u64, E> {
    let digits =
        text.strip_prefix("0x").ok_or_else(|| E::custom(format!("{text:?} does not start with 0x")))?;
    u64::from_str_radix(digits, 16).map_err(|error| E::custom(format!("{text:?}: {error}")))
}

fn hex<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    parse_hex(&String::deserialize(from)?)
}

fn octal<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let text = String::deserialize(from)?;
    u16::from_str_radix(&text, 8).map_err(|error| D::Error::custom(format!("{text:?}: {error}")))
}

/// The members of a JSON object in the order of the text, which for paths is the order of `readdir`.
fn in_order<'de, D: Deserializer<'de>, V: Deserialize<'de>>(from: D) -> Result<Vec<(String, V)>, D::Error> {
    from.deserialize_map(InOrder(std::marker::PhantomData))
}

struct InOrder<V>(std::marker::PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for InOrder<V> {
    type Value = Vec<(String, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            all.push(member);
        }
        Ok(all)
    }
}

impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ListOrObject;
        impl<'de> Visitor<'de> for ListOrObject {
            type Value = Listing;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of entries, or an object of compact entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listing, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = list.next_element()? {
                    all.push(entry);
                }
                Ok(Listing::Full(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Listing, A::Error> {
                InOrder(std::marker::PhantomData).visit_map(members).map(Listing::Compact)
            }
        }
        from.deserialize_any(ListOrObject)
    }
}

impl<'de> Deserialize<'de> for CompactEntry {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Fields {
            Directory([String; 1]),
            Regular(String, u64, u64, String),
        }
        Ok(match Fields::deserialize(from)? {
            Fields::Directory([obj_id]) => Self::Directory { obj_id: parse_hex(&obj_id)? },
            Fields::Regular(obj_id, nlink, size, sha256_start) => {
                Self::Regular { obj_id: parse_hex(&obj_id)?, nlink, size, sha256_start }
            }
        })
    }
}

impl<'de> Deserialize<'de> for AsOf {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ListOrObject;
        impl<'de> Visitor<'de> for ListOrObject {
            type Value = AsOf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of as-of listings, or an object of entries by TID")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<AsOf, A::Error> {
                let mut all = Vec::new();
                while let Some(listing) = list.next_element()? {
                    all.push(listing);
                }
                Ok(AsOf(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<AsOf, A::Error> {
                let mut all = Vec::new();
                while let Some((tid, files)) = members.next_entry::<String, _>()? {
                    all.push(AsOfListing { tid: parse_hex(&tid)?, files });
                }
                Ok(AsOf(all))
            }
        }
        from.deserialize_any(ListOrObject)
    }
}
