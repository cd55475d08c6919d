//! B-tree nodes, their elements, and the order of keys.

use core::cmp::Ordering;
use core::fmt;

use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of a node, in bytes.
pub const NODE_SIZE: usize = 4096;
/// Elements of a leaf at most.
pub const LEAF_ELEMENTS: usize = 63;
/// Children of an internal node at most; one more element holds the right bound.
pub const INTERNAL_ELEMENTS: usize = 62;

/// `type` of an internal node, and `btype` of an element that points to one.
pub const TYPE_INTERNAL: u8 = b'I';
/// `type` of a leaf, and `btype` of an element that points to one.
pub const TYPE_LEAF: u8 = b'L';
/// `type` of a node that was removed from the tree.
pub const TYPE_DELETED: u8 = b'D';
/// `btype` of a leaf's element.
pub const TYPE_RECORD: u8 = b'R';

/// A transaction id: the file system's clock of history.
///
/// 0 means "none" in a record and "newest" in a search; 1 and all ones bound the tree.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub u64);

impl Tid {
    /// "None", "now", or "newest", by context.
    pub const ZERO: Self = Self(0);
    /// The first possible id; no record carries it.
    pub const MIN: Self = Self(1);
    /// The last possible id.
    pub const MAX: Self = Self(u64::MAX);
}

impl fmt::Debug for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What all elements begin with (`hammer_base_elm`): the key, and who owns it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BaseElement {
    /// Object.
    pub obj_id: I64,
    /// Key within object and type.
    pub key: I64,
    /// Transaction that created the record.
    pub create_tid: U64,
    /// Transaction that deleted it, 0 for none.
    pub delete_tid: U64,
    /// Type of the record.
    pub rec_type: U16,
    /// Type of the object, or of a directory entry's target.
    pub obj_type: u8,
    /// `R`, `I`, `L`, or 0 in a right bound.
    pub btype: u8,
    /// Pseudo file system (upper half) and domain (lower half).
    pub localization: U32,
}

/// An element of a node: the base, and 24 bytes that depend on the node's type.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Element {
    /// Key and type.
    pub base: BaseElement,
    tail: [u8; 24],
}

/// The rest of a leaf's element.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LeafTail {
    /// When the record was created, in seconds since the epoch.
    pub create_ts: U32,
    /// When it was deleted, in seconds since the epoch.
    pub delete_ts: U32,
    /// Address of the data.
    pub data_offset: U64,
    /// Length of the data, in bytes.
    pub data_len: I32,
    /// Checksum of the data.
    pub data_crc: U32,
}

/// The rest of an internal node's element.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct InternalTail {
    /// Highest transaction id in the subtree, at least.
    pub mirror_tid: U64,
    /// Address of the child.
    pub subtree_offset: U64,
    /// Zero.
    pub reserved: [I32; 2],
}

/// A node (`hammer_node_ondisk`).
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Node {
    /// Checksum of the 4092 bytes that follow.
    pub crc: U32,
    /// Zero.
    pub reserved00: U32,
    /// Address of the parent, 0 in the root.
    pub parent: U64,
    /// Elements; without the right bound in an internal node.
    pub count: I32,
    /// `I`, `L` or `D`.
    pub node_type: u8,
    /// Zero.
    pub reserved01: [u8; 35],
    /// Highest transaction id in the subtree, at least.
    pub mirror_tid: U64,
    /// The elements. What lies behind `count` is old bytes.
    pub elements: [Element; LEAF_ELEMENTS],
}

impl Element {
    /// An element of a leaf.
    pub fn leaf(base: BaseElement, tail: LeafTail) -> Self {
        Self { base, tail: zerocopy::transmute!(tail) }
    }

    /// An element of an internal node.
    pub fn internal(base: BaseElement, tail: InternalTail) -> Self {
        Self { base, tail: zerocopy::transmute!(tail) }
    }

    /// The rest, read as a leaf's.
    pub fn as_leaf(&self) -> &LeafTail {
        zerocopy::transmute_ref!(&self.tail)
    }

    /// The rest, read as an internal node's.
    pub fn as_internal(&self) -> &InternalTail {
        zerocopy::transmute_ref!(&self.tail)
    }

    /// The rest of a leaf's element, for changing.
    pub fn as_leaf_mut(&mut self) -> &mut LeafTail {
        zerocopy::transmute_mut!(&mut self.tail)
    }

    /// The rest of an internal node's element, for changing.
    pub fn as_internal_mut(&mut self) -> &mut InternalTail {
        zerocopy::transmute_mut!(&mut self.tail)
    }
}

impl BaseElement {
    /// The key in the machine's numbers.
    pub fn key(&self) -> Key {
        Key {
            localization: self.localization.get(),
            obj_id: self.obj_id.get(),
            rec_type: self.rec_type.get(),
            key: self.key.get(),
            create_tid: Tid(self.create_tid.get()),
        }
    }

    /// Whether a view as of `asof` shows the record: it was created by then, and not yet deleted.
    pub fn visible_at(&self, asof: Tid) -> bool {
        let deleted = self.delete_tid.get();
        self.create_tid.get() <= asof.0 && (deleted == 0 || asof.0 < deleted)
    }
}

/// The key of a record: what the tree is ordered by.
///
/// The order is localization, object, record type, key, creation; object and key are signed, and a creation of 0
/// stands behind every other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Pseudo file system (upper half) and domain (lower half).
    pub localization: u32,
    /// Object.
    pub obj_id: i64,
    /// Type of the record.
    pub rec_type: u16,
    /// Key within object and type.
    pub key: i64,
    /// Transaction that created the record; 0 is "after all history".
    pub create_tid: Tid,
}

impl Key {
    /// The left bound of the whole tree.
    pub const BEGIN: Self =
        Self { localization: 0, obj_id: i64::MIN, rec_type: 0, key: i64::MIN, create_tid: Tid::MIN };
    /// The right bound of the whole tree.
    pub const END: Self = Self {
        localization: u32::MAX,
        obj_id: i64::MAX,
        rec_type: u16::MAX,
        key: i64::MAX,
        create_tid: Tid::MAX,
    };

    /// This key, at another creation.
    pub const fn at(self, create_tid: Tid) -> Self {
        Self { create_tid, ..self }
    }

    /// Whether both name the same record, perhaps at different times.
    pub fn same_record(&self, other: &Self) -> bool {
        self.compare(other).unsigned_abs() <= 1
    }

    /// Compares as the original does. The sign tells the order, the magnitude the first field that differs:
    /// 5 localization, 4 object, 3 record type, 2 key, 1 creation, 0 none.
    pub fn compare(&self, other: &Self) -> i8 {
        fn signed(o: Ordering, field: i8) -> i8 {
            o as i8 * field
        }
        // 0 ranks as the largest.
        let rank = |t: Tid| t.0.wrapping_sub(1);
        match self.localization.cmp(&other.localization) {
            Ordering::Equal => {}
            o => return signed(o, 5),
        }
        match self.obj_id.cmp(&other.obj_id) {
            Ordering::Equal => {}
            o => return signed(o, 4),
        }
        match self.rec_type.cmp(&other.rec_type) {
            Ordering::Equal => {}
            o => return signed(o, 3),
        }
        match self.key.cmp(&other.key) {
            Ordering::Equal => {}
            o => return signed(o, 2),
        }
        signed(rank(self.create_tid).cmp(&rank(other.create_tid)), 1)
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare(other).cmp(&0)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

const _: () = {
    assert!(size_of::<BaseElement>() == 40);
    assert!(size_of::<Element>() == 64);
    assert!(size_of::<Node>() == NODE_SIZE);
    assert!(core::mem::offset_of!(Node, mirror_tid) == 56);
};

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    const K: Key = Key { localization: 1, obj_id: 1, rec_type: 1, key: 1, create_tid: Tid(16) };

    #[test]
    fn comparison_tells_which_field_differs_first() {
        assert_eq!(Key { localization: 2, ..K }.compare(&K), 5);
        assert_eq!(Key { obj_id: 0, ..K }.compare(&K), -4);
        assert_eq!(Key { rec_type: 2, key: 0, ..K }.compare(&K), 3);
        assert_eq!(Key { key: 0, ..K }.compare(&K), -2);
        assert_eq!(K.at(Tid(17)).compare(&K), 1);
        assert_eq!(K.compare(&K), 0);
    }

    #[test]
    fn objects_and_keys_are_signed() {
        assert!(Key { obj_id: -1, ..K } < Key { obj_id: 0, ..K });
        assert!(Key { key: i64::MIN, ..K } < Key { key: i64::MAX, ..K });
        assert!(Key { localization: u32::MAX, ..K } > Key { localization: 1, ..K });
    }

    #[test]
    fn creation_zero_stands_behind_every_other() {
        assert_eq!(K.at(Tid::ZERO).compare(&K.at(Tid::MAX)), 1);
        assert_eq!(K.at(Tid::MAX).compare(&K.at(Tid::ZERO)), -1);
        assert_eq!(K.at(Tid::ZERO).compare(&K.at(Tid::ZERO)), 0);
    }

    #[test]
    fn visibility_includes_the_creation_and_excludes_the_deletion() {
        let mut base = BaseElement::new_zeroed();
        base.create_tid = 0x20.into();
        base.delete_tid = 0x60.into();
        let seen = |asof| base.visible_at(Tid(asof));
        assert_eq!([0x1f, 0x20, 0x5f, 0x60].map(seen), [false, true, true, false]);
        assert!(!base.visible_at(Tid::MAX));
        base.delete_tid = 0.into();
        assert!(base.visible_at(Tid::MAX));
    }
}
