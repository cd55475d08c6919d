//! Faults that no read meets, and that DragonFly's own tools do not look for: a checker of its own has to.

use dfly_hammer::ondisk::freemap::{Layer1, Layer2};
use dfly_hammer::ondisk::node::{BaseElement, Element, LeafTail, TYPE_LEAF};
use dfly_hammer::ondisk::record::RecType;
use dfly_hammer::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, Offset, Zone};
use zerocopy::IntoBytes;

use crate::damage::Seal;
use crate::image::{Image, NodeAt};
use crate::record::data_crc;
use crate::{Error, Result};

/// One fault. Checksums are made right again, but for those that are the fault. Records are the live ones of a type, in
/// the order of the tree, counted from 0; big-blocks are the first of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Silent {
    /// The checksum of a volume's header.
    HeaderCrc(usize),
    /// The checksum of an entry of the blockmap.
    BlockmapCrc(usize),
    /// The checksum of the first layer-1 entry.
    Layer1Crc,
    /// The checksum of a big-block's layer-2 entry.
    Layer2Crc(Zone),
    /// The first layer-1 entry counts so many more free big-blocks.
    BlocksFree(i64),
    /// The header counts so many more free big-blocks.
    FreeCount(i64),
    /// The header counts so many more big-blocks.
    BlockCount(i64),
    /// The header counts so many more inodes.
    InodeCount(i64),
    /// The last transaction that the header knows.
    NextTid(u64),
    /// Where the next allocation in a big-block begins.
    Append(Zone, u32),
    /// So many more bytes of a big-block are free.
    BytesFree(Zone, i32),
    /// A big-block of the first zone belongs to the second.
    Owner(Zone, Zone),
    /// A free big-block belongs to a zone, and all counters say so.
    LeakedBlock(Zone),
    /// Another record lies where the first of the type lies, if both are equally long; all counters are right.
    Overlap(RecType),
    /// The transaction id that the first leaf sums up.
    MirrorTid(u64),
    /// Bytes of a record's data, from a place on.
    Data(RecType, usize, usize, Vec<u8>),
    /// The key of a record. The order of the tree is not looked after.
    Key(RecType, usize, i64),
    /// When a record was created and deleted.
    Tids(RecType, usize, u64, u64),
    /// The type of a record's object.
    ObjType(RecType, usize, u8),
    /// The localization of a record. The order of the tree is not looked after.
    Localization(RecType, usize, u32),
}

impl Silent {
    /// Breaks the image.
    ///
    /// # Errors
    /// [`Error::NotThere`] if the image has no such place; it is unchanged then.
    pub fn apply(&self, image: &mut Image) -> Result<()> {
        match *self {
            Self::HeaderCrc(volume) => {
                let mut header = image.header(volume)?;
                header.vol_crc = (header.vol_crc.get() ^ 1).into();
                let out = image.volumes.get_mut(volume).ok_or(Error::NotThere("such volume"))?;
                out.write_at(0, header.as_bytes())
            }
            Self::BlockmapCrc(index) => image.edit_header(0, |h| {
                let crc = &mut h.vol0_blockmap[index].entry_crc;
                *crc = (crc.get() ^ 1).into();
            }),
            Self::Layer1Crc => {
                let (place, mut entry) = image.first_layer1()?;
                entry.layer1_crc = (entry.layer1_crc.get() ^ 1).into();
                image.put(place, &entry)
            }
            Self::Layer2Crc(zone) => {
                let (place, mut entry) = image.block_of(zone)?;
                entry.entry_crc = (entry.entry_crc.get() ^ 1).into();
                image.put(place, &entry)
            }
            Self::BlocksFree(more) => image.edit_layer1(|l| add(&mut l.blocks_free, more)),
            Self::FreeCount(more) => image.edit_header(0, |h| {
                h.vol0_stat_freebigblocks = (h.vol0_stat_freebigblocks.get() + more).into();
            }),
            Self::BlockCount(more) => image.edit_header(0, |h| {
                h.vol0_stat_bigblocks = (h.vol0_stat_bigblocks.get() + more).into();
            }),
            Self::InodeCount(more) => image.edit_header(0, |h| {
                h.vol0_stat_inodes = (h.vol0_stat_inodes.get() + more).into();
            }),
            Self::NextTid(tid) => image.edit_header(0, |h| h.vol0_next_tid = tid.into()),
            Self::Append(zone, append) => image.edit_layer2(zone, |l| l.append_off = append.into()),
            Self::BytesFree(zone, more) => {
                image.edit_layer2(zone, |l| l.bytes_free = (l.bytes_free.get() + more).into())
            }
            Self::Owner(from, to) => image.edit_layer2(from, |l| l.zone = to.0),
            Self::LeakedBlock(zone) => {
                image.edit_layer2(Zone::FREE, |l| {
                    l.zone = zone.0;
                    l.append_off = (BIG_BLOCK_SIZE as u32).into();
                    l.bytes_free = 0.into();
                })?;
                image.edit_layer1(|l| add(&mut l.blocks_free, -1))?;
                Self::FreeCount(-1).apply(image)
            }
            Self::Overlap(rec_type) => {
                let (leaf, index) = image.nth_record(rec_type, 0)?;
                let first = *leaf.node.elements[index].as_leaf();
                let second = (1..).map(|n| image.nth_record(rec_type, n)).find_map(|found| match found {
                    Ok((leaf, index)) => {
                        let tail = leaf.node.elements[index].as_leaf();
                        (tail.data_len == first.data_len).then_some(Ok((leaf, index)))
                    }
                    Err(e) => Some(Err(e)),
                });
                let (leaf, index) = second.ok_or(Error::NotThere("second record"))??;
                image.edit_element(&leaf, index, |_, tail| {
                    tail.data_offset = first.data_offset;
                    tail.data_crc = first.data_crc;
                })
            }
            Self::MirrorTid(tid) => {
                let leaf = image.nodes()?.into_iter().find(|n| n.node.node_type == TYPE_LEAF);
                let leaf = leaf.ok_or(Error::NotThere("leaf"))?;
                image.edit_node(leaf.at, Seal::Fresh, |node| node.mirror_tid = tid.into())
            }
            Self::Data(rec_type, nth, at, ref bytes) => {
                let (leaf, index) = image.nth_record(rec_type, nth)?;
                let tail = *leaf.node.elements[index].as_leaf();
                let place = Offset(tail.data_offset.get());
                let mut data = image.read(place, tail.data_len.get() as usize)?;
                let to = data.get_mut(at..).and_then(|d| d.get_mut(..bytes.len()));
                to.ok_or(Error::NotThere("such byte of data"))?.copy_from_slice(bytes);
                image.write(place, &data)?;
                let crc = data_crc(rec_type.0, &data, image.flavor()?);
                image.edit_element(&leaf, index, |_, tail| tail.data_crc = crc.into())
            }
            Self::Key(rec_type, nth, key) => image.edit_nth(rec_type, nth, |base| base.key = key.into()),
            Self::Tids(rec_type, nth, create, delete) => image.edit_nth(rec_type, nth, |base| {
                base.create_tid = create.into();
                base.delete_tid = delete.into();
            }),
            Self::ObjType(rec_type, nth, obj_type) => {
                image.edit_nth(rec_type, nth, |base| base.obj_type = obj_type)
            }
            Self::Localization(rec_type, nth, localization) => {
                image.edit_nth(rec_type, nth, |base| base.localization = localization.into())
            }
        }
    }
}

fn add(value: &mut zerocopy::little_endian::U64, more: i64) {
    *value = value.get().wrapping_add_signed(more).into();
}

impl Image {
    fn nth_record(&self, rec_type: RecType, nth: usize) -> Result<(NodeAt, usize)> {
        let mut left = nth;
        for leaf in self.nodes()?.into_iter().filter(|n| n.node.node_type == TYPE_LEAF) {
            for index in 0..leaf.node.count.get().clamp(0, 63) as usize {
                let base = &leaf.node.elements[index].base;
                if base.rec_type.get() != rec_type.0 || base.delete_tid.get() != 0 {
                    continue;
                }
                if left == 0 {
                    return Ok((leaf, index));
                }
                left -= 1;
            }
        }
        Err(Error::NotThere("such live record"))
    }

    fn edit_nth(
        &mut self,
        rec_type: RecType,
        nth: usize,
        change: impl FnOnce(&mut BaseElement),
    ) -> Result<()> {
        let (leaf, index) = self.nth_record(rec_type, nth)?;
        self.edit_element(&leaf, index, |base, _| change(base))
    }

    fn edit_element(
        &mut self,
        leaf: &NodeAt,
        index: usize,
        change: impl FnOnce(&mut BaseElement, &mut LeafTail),
    ) -> Result<()> {
        let element = leaf.node.elements[index];
        let (mut base, mut tail) = (element.base, *element.as_leaf());
        change(&mut base, &mut tail);
        self.edit_node(leaf.at, Seal::Fresh, |node| node.elements[index] = Element::leaf(base, tail))
    }

    fn first_layer1(&self) -> Result<(Offset, Layer1)> {
        let place = Offset(self.header(0)?.vol0_blockmap[4].phys_offset.get());
        Ok((place, self.view(place)?))
    }

    fn edit_layer1(&mut self, change: impl FnOnce(&mut Layer1)) -> Result<()> {
        let (place, mut entry) = self.first_layer1()?;
        change(&mut entry);
        entry.layer1_crc = self.flavor()?.of(&entry.as_bytes()[..Layer1::CRC_LEN]).into();
        self.put(place, &entry)
    }

    /// The layer-2 entry of the root volume's first big-block of a zone, and where it lies.
    fn block_of(&self, zone: Zone) -> Result<(Offset, Layer2)> {
        let table = Offset(self.first_layer1()?.1.phys_offset.get());
        let per_buffer = (BUFFER_SIZE / size_of::<Layer2>()) as u64;
        for block in 0..per_buffer {
            let place = Offset(table.0 + block * size_of::<Layer2>() as u64);
            let entry: Layer2 = self.view(place)?;
            if entry.zone == zone.0 {
                return Ok((place, entry));
            }
        }
        Err(Error::NotThere("big-block of this zone"))
    }

    fn edit_layer2(&mut self, zone: Zone, change: impl FnOnce(&mut Layer2)) -> Result<()> {
        let (place, mut entry) = self.block_of(zone)?;
        change(&mut entry);
        entry.entry_crc = self.flavor()?.of(&entry.as_bytes()[..Layer2::CRC_LEN]).into();
        self.put(place, &entry)
    }
}
