//! What can be found, named and weighed.

use core::fmt;

use crate::ondisk::Offset;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Legal, but worth knowing: space that nobody uses, an object that only waits for its end.
    Note,
    /// Wrong, but no data depends on it: counters, checksums that nobody verifies.
    Warning,
    /// Data is lost or damaged, or will be by the next writes.
    Error,
}

impl Severity {
    /// One lower-case word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// An object as the disk names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its pseudo file system.
    pub pfs: u16,
    /// Its number there.
    pub obj_id: i64,
}

/// One thing that is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The structure that it was found in.
    pub at: Offset,
    /// The object that it belongs to, if it belongs to one.
    pub object: Option<ObjectRef>,
    /// What stands there and what should, where both are numbers.
    pub values: Option<Values>,
}

/// A number that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Values {
    /// What was found.
    pub found: u64,
    /// What was expected: the value, or the limit that was exceeded.
    pub expected: u64,
}

impl Finding {
    pub(super) const fn new(kind: Kind, at: Offset) -> Self {
        Self { kind, at, object: None, values: None }
    }

    pub(super) const fn of(self, object: ObjectRef) -> Self {
        Self { object: Some(object), ..self }
    }

    pub(super) const fn values(self, found: u64, expected: u64) -> Self {
        Self { values: Some(Values { found, expected }), ..self }
    }
}

impl fmt::Display for Finding {
    /// `error: record-checksum at 9000000002000000, object 00000:0000000100000745: ... (found 0x1, expected 0x2)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        write!(f, "{}: {} at {}", kind.severity().name(), kind.name(), self.at)?;
        if let Some(ObjectRef { pfs, obj_id }) = self.object {
            write!(f, ", object {pfs:05}:{obj_id:016x}")?;
        }
        write!(f, ": {}", kind.text())?;
        if let Some(Values { found, expected }) = self.values {
            write!(f, " (found {found:#x}, expected {expected:#x})")?;
        }
        Ok(())
    }
}

macro_rules! kinds {
    ($($variant:ident, $severity:ident, $name:literal, $text:literal;)*) => {
        /// What can be wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $(#[doc = $text] $variant,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity,)* }
            }

            /// A name for programs: lower case, with hyphens.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// A sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

kinds! {
    HeaderChecksum, Warning, "header-checksum", "the volume header does not match its checksum";
    HeaderTorn, Note, "header-torn", "after a crash a volume header does not match its checksum";
    HeaderField, Warning, "header-field", "a field of the volume header is not what it must be";
    BlockmapChecksum, Warning, "blockmap-checksum", "an entry of the blockmap does not match its checksum";
    BlockmapPosition, Error, "blockmap-position", "an entry of the blockmap leads out of its zone";
    NextTid, Error, "next-tid", "a transaction id is above the last one that was used";
    InodeCount, Warning, "inode-count", "the header counts other than the inodes that live";
    BigBlockCount, Warning, "big-block-count", "the header counts other than the big-blocks that there are";
    FreeCount, Warning, "free-count", "the header counts other than the big-blocks that are free";

    FifoDamaged, Error, "fifo-damaged", "the UNDO log cannot be applied; what follows describes the disk as it lies";
    FifoRecord, Warning, "fifo-record", "a record of the FIFO that is not needed now is damaged";
    FifoBlock, Error, "fifo-block", "a big-block of the FIFO is none, or belongs to it twice";

    Layer1Checksum, Error, "layer1-checksum", "a layer-1 entry does not match its checksum";
    Layer1Address, Error, "layer1-address", "a layer-1 entry leads to no table, or to one without space behind it";
    Layer1Free, Error, "layer1-free", "a layer-1 entry counts other than the big-blocks that are free";
    Layer2Checksum, Error, "layer2-checksum", "a layer-2 entry does not match its checksum";
    Layer2Owner, Error, "layer2-owner", "a big-block is owned by a zone that cannot own it";
    Layer2State, Error, "layer2-state", "a layer-2 entry contradicts itself";
    AppendTooLow, Error, "append-too-low", "the next allocation in a big-block would overwrite what is in use";
    SpaceOverused, Error, "space-overused", "more of a big-block is in use than the freemap says";
    SpaceLeaked, Note, "space-leaked", "less of a big-block is in use than the freemap says";
    BigBlockLeaked, Note, "big-block-leaked", "a big-block is owned, but nothing in it is in use";
    WrongOwner, Error, "wrong-owner", "what is in use lies in a big-block that belongs to another zone";
    Overlap, Error, "overlap", "two structures share bytes";

    NodeUnreadable, Error, "node-unreadable", "a B-tree node cannot be read";
    NodeChecksum, Error, "node-checksum", "a B-tree node does not match its checksum";
    NodeType, Error, "node-type", "a B-tree node has a type that is unknown, or not the one its parent says";
    NodeCount, Error, "node-count", "a B-tree node has an impossible count";
    NodeDepth, Error, "node-depth", "the B-tree is too deep: what is below is not looked at";
    NodeParent, Error, "node-parent", "a child names another parent, or stands twice in its own: it is not looked at";
    NodeEmpty, Error, "node-empty", "a leaf is empty and not the only child";
    RootBounds, Error, "root-bounds", "the bounds in the root are not those of the tree";
    ElementType, Error, "element-type", "an element has a type that does not belong into its node";
    ElementOrder, Error, "element-order", "an element is not greater than the one before it";
    ElementBounds, Error, "element-bounds", "an element lies outside of the bounds that the parent gives";
    MirrorTid, Error, "mirror-tid", "a transaction id is higher than the aggregate above it says: mirrors would miss it";

    RecordType, Error, "record-type", "a record has an unknown type";
    RecordDomain, Error, "record-domain", "a record stands in the wrong localization, object or key for its type";
    RecordPlace, Error, "record-place", "the data of a record cannot lie there, or cannot have that length";
    RecordUnreadable, Error, "record-unreadable", "the data of a record cannot be read";
    RecordChecksum, Error, "record-checksum", "the data of a record does not match its checksum";
    RecordTids, Error, "record-tids", "the transactions of a record contradict each other";
    RecordTime, Warning, "record-time", "a deleted record has no time of deletion";
    HistoryOverlap, Error, "history-overlap", "two versions of a record live at the same time";
    ObjectType, Error, "object-type", "an element and its inode disagree about the object's type";
    NoInode, Error, "no-inode", "live records belong to an object without a live inode";

    DataGrid, Error, "data-grid", "a record of file data does not lie on the grid of blocks";
    DataOverlap, Error, "data-overlap", "two records hold the same bytes of a file at the same time";
    DataBeyondEnd, Warning, "data-beyond-end", "a record of file data begins behind the end of the file";
    SymlinkTarget, Error, "symlink-target", "a symbolic link has no target, or one of another length";

    InodeField, Error, "inode-field", "a field of an inode is not what it can be";
    InodeOrphan, Error, "inode-orphan", "an inode has no name";
    InodeUnlinked, Note, "inode-unlinked", "an inode without links waits for its end";
    InodeLinks, Error, "inode-links", "an inode counts other than the names that it has";
    InodeParent, Error, "inode-parent", "a directory's inode names another parent than the directory that lists it";
    DirectoryLinks, Error, "directory-links", "a directory has more than one name";
    DirectoryLoop, Error, "directory-loop", "a directory lies below itself: no path leads there";
    DirentName, Error, "dirent-name", "a directory entry has a name that cannot be";
    DirentKey, Error, "dirent-key", "a directory entry stands under a key that its name does not lead to";
    DirentTwice, Error, "dirent-twice", "a directory has two entries of the same name";
    DirentTarget, Error, "dirent-target", "a directory entry names an object without an inode";
    DirentType, Error, "dirent-type", "a directory entry and the inode disagree about the object's type";

    PfsRecord, Error, "pfs-record", "the description of a pseudo file system cannot be";
    PfsRoot, Error, "pfs-root", "a pseudo file system has no root directory";
    PfsMissing, Error, "pfs-missing", "objects belong to a pseudo file system that is not described";
    SnapshotRecord, Error, "snapshot-record", "a snapshot contradicts its key";
    ConfigRecord, Error, "config-record", "configuration text cannot be";

    LimitReached, Warning, "limit-reached", "too much to remember for the memory budget: not all of it was compared";
}
