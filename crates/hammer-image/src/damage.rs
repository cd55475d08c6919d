//! Ways to break a sound image, each by one deliberate fault.

use dfly_hammer::ondisk::fifo::{FifoHead, TYPE_UNDO, UndoHead};
use dfly_hammer::ondisk::freemap::Layer2;
use dfly_hammer::ondisk::node::{
    BaseElement, Element, InternalTail, LeafTail, NODE_SIZE, Node, TYPE_INTERNAL, TYPE_LEAF,
};
use dfly_hammer::ondisk::record::RecType;
use dfly_hammer::ondisk::volume::{SIGNATURE_SWAPPED, VolumeHeader};
use dfly_hammer::ondisk::{BIG_BLOCK_SIZE, MAX_RECORD_DATA, Offset, VERSION_MAX, Zone};
use zerocopy::{FromZeros, IntoBytes};

use crate::image::{Image, NodeAt};
use crate::record::data_crc;
use crate::{Error, Result};

/// What happens to the checksum over the damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// It stays, and tells of the damage.
    Stale,
    /// It is made right again: only a check of the value itself finds the damage.
    Fresh,
}

/// One fault. Nodes are the root, the first node below it or the first leaf, as each variant says; records are the
/// first live one of a type that has data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// The byte at a place of a volume is inverted.
    FlippedByte {
        /// Index of the volume.
        volume: usize,
        /// Device byte.
        at: u64,
    },
    /// A volume ends too early.
    Truncated {
        /// Index of the volume.
        volume: usize,
        /// Its new size, in bytes.
        size: u64,
    },
    /// The last volume is missing.
    MissingVolume,
    /// A volume's signature is this.
    Signature {
        /// Index of the volume.
        volume: usize,
        /// What stands there.
        signature: u64,
    },
    /// The version of the file system, on all volumes.
    Version(u32),
    /// The number of volumes, on all of them.
    VolumeCount(i32),
    /// The number of the last volume.
    VolumeNumber(i32),
    /// The number of the root volume.
    RootVolume(u32),
    /// The last volume belongs to another file system.
    ForeignFsid,
    /// Begin and end of the area of big-blocks.
    BufferArea(i64, i64),
    /// Address of the tree's root.
    Root(u64),
    /// The first leaf's parent takes the place of the leaf.
    Cycle,
    /// So many levels of nodes with one child are put on top of the tree. Nothing but the height is wrong.
    TooDeep(usize),
    /// Number of elements of the first leaf.
    LeafCount(i32),
    /// Number of children of the root, which is no leaf.
    ChildCount(i32),
    /// Type of the first leaf.
    NodeType(u8),
    /// Type that the root claims for its first child.
    ChildType(u8),
    /// Address of the parent in the root's first child.
    Parent(u64),
    /// Address of the root's first child.
    Child(u64),
    /// Two neighbours of a leaf are swapped.
    KeyOrder,
    /// An element of the first leaf that has a right neighbour lies behind the leaf's right bound.
    KeyOutOfBounds,
    /// Address of a record's data.
    DataOffset(RecType, u64),
    /// Length of a record's data. Of a directory entry: 16 is an empty name, and 272 one that is too long.
    DataLen(RecType, i32),
    /// A byte of a record's data is inverted. [`Seal::Fresh`] leaves different data with a right checksum.
    DataByte(RecType, usize),
    /// The type of a record.
    RecordType(RecType, u16),
    /// Begin and end of the FIFO's range in the header, as positions.
    FifoRange(u64, u64),
    /// The signature of the first FIFO record in the range.
    FifoSignature(u16),
    /// The length of the first FIFO record in the range.
    FifoSize(u32),
    /// The last byte of payload of the first FIFO record in the range is inverted.
    FifoByte,
    /// Where the first UNDO record of the range restores bytes to.
    UndoTarget(u64),
}

impl Damage {
    /// One or more of every kind, for an image of `volumes` volumes. Those that need an inner node, more volumes or a
    /// dirty FIFO answer [`Error::NotThere`] where there is none.
    pub fn samples() -> Vec<Self> {
        use Damage::*;
        let far = Offset::new(Zone::META, 0, 1 << 50).0;
        let mut all = vec![
            FlippedByte { volume: 0, at: 0 },
            Truncated { volume: 0, size: 0 },
            Truncated { volume: 0, size: 1000 },
            Truncated { volume: 0, size: 1 << 20 },
            Truncated { volume: 0, size: 30 << 20 },
            MissingVolume,
            Signature { volume: 0, signature: 0 },
            Signature { volume: 0, signature: SIGNATURE_SWAPPED },
            RootVolume(1),
            ForeignFsid,
            Cycle,
            TooDeep(200),
            KeyOrder,
            KeyOutOfBounds,
            FifoSignature(0),
            FifoByte,
        ];
        all.extend([0, VERSION_MAX + 1, u32::MAX].map(Version));
        all.extend([i32::MIN, 0, 3, 257].map(VolumeCount));
        all.extend([-1, 0, 300].map(VolumeNumber));
        all.extend(
            [(-1, 1 << 20), (0, -1), (i64::MIN, i64::MAX), (1 << 40, 2 << 40)].map(|(b, e)| BufferArea(b, e)),
        );
        let addresses =
            [0, 1, u64::MAX, far, Offset::new(Zone::BTREE, 0, 1 << 50).0, Offset::new(Zone::BTREE, 200, 0).0];
        all.extend(addresses.map(Root));
        all.extend(addresses.map(Child));
        all.extend([0, u64::MAX, far].map(Parent));
        all.extend([i32::MIN, -1, 64, i32::MAX].map(LeafCount));
        all.extend([i32::MIN, -1, 0, 63, i32::MAX].map(ChildCount));
        all.extend([0, b'I', b'D', 0xff].map(NodeType));
        all.extend([0, b'R', 0xff].map(ChildType));
        for rec_type in [RecType::INODE, RecType::DIRENTRY, RecType::DATA, RecType::FIX, RecType::PFS] {
            all.extend(addresses.map(|at| DataOffset(rec_type, at)));
            all.extend([i32::MIN, -1, 0, 1, 15, 16, 272, 65537, i32::MAX].map(|len| DataLen(rec_type, len)));
            all.extend([DataByte(rec_type, 0), RecordType(rec_type, 0), RecordType(rec_type, 0x7777)]);
        }
        all.extend([(u64::MAX >> 12, 0), (0, u64::MAX >> 12), (3, 3)].map(|(a, b)| FifoRange(a, b)));
        all.extend([0, 7, 8, 513, u32::MAX].map(FifoSize));
        all.extend([0, u64::MAX, far, Offset::new(Zone::RAW_BUFFER, 0, 0x3fff).0].map(UndoTarget));
        all
    }

    /// Breaks the image. Header checksums, which nobody verifies, are always right.
    ///
    /// # Errors
    /// [`Error::NotThere`] if the image has no such place; it is unchanged then.
    pub fn apply(&self, image: &mut Image, seal: Seal) -> Result<()> {
        let last = image.volumes.len() - 1;
        match *self {
            Self::FlippedByte { volume, at } => image.flip(volume, at),
            Self::Truncated { volume, size } => {
                image.volumes.get_mut(volume).ok_or(Error::NotThere("such volume"))?.resize(size);
                Ok(())
            }
            Self::MissingVolume if last == 0 => Err(Error::NotThere("second volume")),
            Self::MissingVolume => {
                image.volumes.pop();
                Ok(())
            }
            Self::Signature { volume, signature } => {
                image.edit_header(volume, |h| h.vol_signature = signature.into())
            }
            Self::Version(version) => image.edit_headers(|h| h.vol_version = version.into()),
            Self::VolumeCount(count) => image.edit_headers(|h| h.vol_count = count.into()),
            Self::VolumeNumber(number) => image.edit_header(last, |h| h.vol_no = number.into()),
            Self::RootVolume(number) => image.edit_headers(|h| h.vol_rootvol = number.into()),
            Self::ForeignFsid if last == 0 => Err(Error::NotThere("second volume")),
            Self::ForeignFsid => image.edit_header(last, |h| h.vol_fsid[0] ^= 0xff),
            Self::BufferArea(begin, end) => image.edit_header(0, |h| {
                h.vol_buf_beg = begin.into();
                h.vol_buf_end = end.into();
            }),
            Self::Root(at) => image.edit_header(0, |h| h.vol0_btree_root = at.into()),
            Self::Cycle => {
                let parent = image.first_leaf()?.node.parent.get();
                if parent == 0 {
                    return Err(Error::NotThere("inner node"));
                }
                image.edit_node(Offset(parent), seal, |node| {
                    let old = node.elements[0];
                    let tail = InternalTail { subtree_offset: parent.into(), ..*old.as_internal() };
                    node.elements[0] =
                        Element::internal(BaseElement { btype: TYPE_INTERNAL, ..old.base }, tail);
                })
            }
            Self::TooDeep(levels) => image.raise(levels),
            Self::LeafCount(count) => {
                image.edit_node(image.first_leaf()?.at, seal, |node| node.count = count.into())
            }
            Self::ChildCount(count) => {
                image.edit_node(image.inner_root()?.at, seal, |node| node.count = count.into())
            }
            Self::NodeType(node_type) => {
                image.edit_node(image.first_leaf()?.at, seal, |node| node.node_type = node_type)
            }
            Self::ChildType(btype) => {
                image.edit_node(image.inner_root()?.at, seal, |node| node.elements[0].base.btype = btype)
            }
            Self::Parent(parent) => {
                let child = image.inner_root()?.node.elements[0].as_internal().subtree_offset.get();
                image.edit_node(Offset(child), seal, |node| node.parent = parent.into())
            }
            Self::Child(at) => image.edit_node(image.inner_root()?.at, seal, |node| {
                let old = node.elements[0];
                let tail = InternalTail { subtree_offset: at.into(), ..*old.as_internal() };
                node.elements[0] = Element::internal(old.base, tail);
            }),
            Self::KeyOrder => {
                let leaf = image.leaf_where(|leaf| leaf.count.get() > 1, "leaf of two records")?;
                image.edit_node(leaf.at, seal, |node| node.elements.swap(0, 1))
            }
            Self::KeyOutOfBounds => {
                image.inner_root()?;
                let leaf = image.first_leaf()?;
                let end = leaf.node.count.get().max(1) as usize - 1;
                image.edit_node(leaf.at, seal, |node| node.elements[end].base.localization = u32::MAX.into())
            }
            Self::DataOffset(rec_type, at) => {
                image.edit_record(rec_type, seal, |_, tail| tail.data_offset = at.into())
            }
            Self::DataLen(rec_type, len) => {
                image.edit_record(rec_type, seal, |_, tail| tail.data_len = len.into())
            }
            Self::DataByte(rec_type, byte) => {
                let (_, _, tail) = image.find_record(rec_type)?;
                if byte >= tail.data_len.get() as usize {
                    return Err(Error::NotThere("such byte of data"));
                }
                let (volume, at) = image.locate(Offset(tail.data_offset.get()))?;
                image.flip(volume, at + byte as u64)?;
                if seal == Seal::Fresh { image.edit_record(rec_type, seal, |_, _| ()) } else { Ok(()) }
            }
            Self::RecordType(old, new) => image.edit_record(old, seal, |base, _| base.rec_type = new.into()),
            Self::FifoRange(first, next) => image.edit_header(0, |h| {
                h.vol0_blockmap[3].first_offset = Offset::new(Zone::UNDO, 0, first).0.into();
                h.vol0_blockmap[3].next_offset = Offset::new(Zone::UNDO, 0, next).0.into();
            }),
            Self::FifoSignature(signature) => {
                image.edit_fifo(seal, 0, |record| record[..2].copy_from_slice(&signature.to_le_bytes()))
            }
            Self::FifoSize(size) => {
                image.edit_fifo(seal, 0, |record| record[4..8].copy_from_slice(&size.to_le_bytes()))
            }
            Self::FifoByte => image.edit_fifo(seal, 0, |record| {
                let last = record.len() - 9;
                record[last] ^= 0xff;
            }),
            Self::UndoTarget(target) => image
                .edit_fifo(seal, TYPE_UNDO, |record| record[16..24].copy_from_slice(&target.to_le_bytes())),
        }
    }
}

impl Image {
    /// Changes the header of a volume.
    pub fn edit_header(&mut self, volume: usize, change: impl FnOnce(&mut VolumeHeader)) -> Result<()> {
        let mut header = self.header(volume)?;
        change(&mut header);
        self.put_header(volume, &header)
    }

    /// Changes a node.
    pub fn edit_node(&mut self, at: Offset, seal: Seal, change: impl FnOnce(&mut Node)) -> Result<()> {
        let mut node = self.node(at)?;
        change(&mut node);
        match seal {
            Seal::Stale => self.put(at, &node),
            Seal::Fresh => self.put_node(at, &node),
        }
    }

    /// Changes the element of the first live record of a type.
    pub fn edit_record(
        &mut self,
        rec_type: RecType,
        seal: Seal,
        change: impl FnOnce(&mut BaseElement, &mut LeafTail),
    ) -> Result<()> {
        let (leaf, index, mut tail) = self.find_record(rec_type)?;
        let mut base = leaf.node.elements[index].base;
        change(&mut base, &mut tail);
        let len = tail.data_len.get();
        // What cannot be read has no checksum that could be right.
        let readable = seal == Seal::Fresh && (0..=MAX_RECORD_DATA as i32).contains(&len);
        if readable && let Ok(data) = self.read(Offset(tail.data_offset.get()), len as usize) {
            tail.data_crc = data_crc(base.rec_type.get(), &data, self.flavor()?).into();
        }
        self.edit_node(leaf.at, seal, |node| node.elements[index] = Element::leaf(base, tail))
    }

    fn edit_headers(&mut self, change: impl Fn(&mut VolumeHeader)) -> Result<()> {
        (0..self.volumes.len()).try_for_each(|volume| self.edit_header(volume, &change))
    }

    fn flip(&mut self, volume: usize, at: u64) -> Result<()> {
        let mut byte = [0];
        let out = self.volumes.get_mut(volume).ok_or(Error::NotThere("such volume"))?;
        out.read_at(at, &mut byte)?;
        out.write_at(at, &[!byte[0]])
    }

    fn inner_root(&self) -> Result<NodeAt> {
        let at = Offset(self.header(0)?.vol0_btree_root.get());
        let node = self.node(at)?;
        if node.node_type == TYPE_INTERNAL {
            Ok(NodeAt { at, depth: 0, node })
        } else {
            Err(Error::NotThere("inner node"))
        }
    }

    fn first_leaf(&self) -> Result<NodeAt> {
        self.leaf_where(|_| true, "leaf")
    }

    fn leaf_where(&self, wanted: impl Fn(&Node) -> bool, what: &'static str) -> Result<NodeAt> {
        let leaf = |n: &NodeAt| n.node.node_type == TYPE_LEAF && wanted(&n.node);
        self.nodes()?.into_iter().find(leaf).ok_or(Error::NotThere(what))
    }

    fn find_record(&self, rec_type: RecType) -> Result<(NodeAt, usize, LeafTail)> {
        let wanted = |e: &Element| {
            let tail = e.as_leaf();
            e.base.rec_type.get() == rec_type.0 && e.base.delete_tid.get() == 0 && tail.data_len.get() > 0
        };
        let place = |node: &Node| node.elements.iter().take(node.count.get() as usize).position(wanted);
        let leaf = self.leaf_where(|node| place(node).is_some(), "live record of this type")?;
        let index = place(&leaf.node).unwrap_or_default();
        let tail = *leaf.node.elements[index].as_leaf();
        Ok((leaf, index, tail))
    }

    /// Changes the bytes of the first record in the FIFO's range, or the first of a type.
    fn edit_fifo(&mut self, seal: Seal, record_type: u16, change: impl FnOnce(&mut [u8])) -> Result<()> {
        let header = self.header(0)?;
        let map = &header.vol0_blockmap[3];
        let size = Offset(map.alloc_offset.get()).byte();
        let (mut at, end) =
            (Offset(map.first_offset.get()).byte() % size, Offset(map.next_offset.get()).byte() % size);
        while at != end {
            let place = Offset::new(Zone::UNDO, 0, at);
            let head: FifoHead = self.view(place)?;
            let len = head.size.get();
            if (record_type == 0 || head.record_type.get() == record_type)
                && len as usize >= size_of::<FifoHead>() + size_of::<UndoHead>()
            {
                let mut record = self.read(place, len as usize)?;
                change(&mut record);
                if seal == Seal::Fresh {
                    let flavor = self.flavor()?;
                    let crc = flavor.of(&record[..12]) ^ flavor.of(&record[16..]);
                    record[12..16].copy_from_slice(&crc.to_le_bytes());
                }
                return self.write(place, &record);
            }
            at = (at + u64::from(len.max(8))) % size;
        }
        Err(Error::NotThere("such record in the FIFO's range"))
    }

    /// Puts levels on top of the tree, in space that is allocated as it should be.
    fn raise(&mut self, levels: usize) -> Result<()> {
        let mut header = self.header(0)?;
        let first = Offset(header.vol0_blockmap[8].next_offset.get());
        let bytes = (levels * NODE_SIZE) as u64;
        if first.in_big_block() == 0 || first.in_big_block() + bytes > BIG_BLOCK_SIZE {
            return Err(Error::NotThere("room for so many nodes"));
        }
        let flavor = self.flavor()?;
        let mut below = Offset(header.vol0_btree_root.get());
        for level in 0..levels {
            let at = Offset(first.0 + (level * NODE_SIZE) as u64);
            let mut child = self.node(below)?;
            child.parent = at.0.into();
            self.put_node(below, &child)?;
            let mut node = Node::new_zeroed();
            node.node_type = TYPE_INTERNAL;
            node.count = 1.into();
            node.mirror_tid = child.mirror_tid;
            let [begin, end] = crate::tree::bounds(child.node_type);
            let tail = InternalTail {
                mirror_tid: child.mirror_tid,
                subtree_offset: below.0.into(),
                reserved: Default::default(),
            };
            node.elements[0] = Element::internal(begin, tail);
            node.elements[1] = Element::internal(end, InternalTail::new_zeroed());
            self.put_node(at, &node)?;
            below = at;
        }
        let place = self.layer2_place(first)?;
        let mut owner: Layer2 = self.view(place)?;
        owner.append_off = (owner.append_off.get() + bytes as u32).into();
        owner.bytes_free = (owner.bytes_free.get() - bytes as i32).into();
        owner.entry_crc = flavor.of(&owner.as_bytes()[..Layer2::CRC_LEN]).into();
        self.put(place, &owner)?;
        header.vol0_btree_root = below.0.into();
        let map = &mut header.vol0_blockmap[8];
        map.next_offset = (first.0 + bytes).into();
        map.entry_crc = flavor.of(&map.as_bytes()[..36]).into();
        self.put_header(0, &header)
    }
}
