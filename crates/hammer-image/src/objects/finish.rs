//! From records to an image.

use std::collections::BTreeMap;

use dfly_hammer::crc::{Checksum, Flavor};
use dfly_hammer::ondisk::node::{BaseElement, Element, Key, LeafTail, TYPE_RECORD, Tid};
use dfly_hammer::ondisk::record::RecType;
use dfly_hammer::ondisk::{MAX_RECORD_DATA, Offset};
use zerocopy::FromZeros;

use super::Builder;
use crate::image::Image;
use crate::layout::{Contents, Space};
use crate::record::{Record, data_crc};
use crate::tree::Tree;
use crate::{Error, Result};

impl Builder {
    /// Builds the image.
    pub fn finish(&self) -> Result<Image> {
        if let Some(what) = &self.failed {
            return Err(Error::Description(what.clone()));
        }
        let (mut image, mut space) = self.format.begin()?;
        let keys: Vec<Key> = self.records.keys().copied().collect();
        let tree = Tree::plan(&keys, self.shape, &mut space)?;
        let flavor = Checksum::of_version(self.format.version).newest();
        let elements = self.write_data(&mut image, &mut space, flavor)?;
        let root = tree.root();
        tree.write(&elements, &mut image, flavor)?;

        let mut tids =
            self.records.values().map(|r| r.key.create_tid.0.max(r.delete_tid.0)).max().unwrap_or(0);
        // Object ids come from the same counter and must never be handed out again.
        if self.next_object > 0x1_0000_0400 {
            tids = tids.max(self.next_object as u64);
        }
        let live = |r: &&Record| r.key.rec_type == RecType::INODE.0 && r.delete_tid == Tid::ZERO;
        let inodes = self.records.values().filter(live).count() as i64;
        self.format.end(&mut image, &space, &Contents { root, next_tid: tids, inodes })?;
        Ok(image)
    }

    /// Stores the records' data in the order of their creation, and makes their elements in the order of their keys.
    fn write_data(&self, image: &mut Image, space: &mut Space, flavor: Flavor) -> Result<Vec<Element>> {
        let mut order: Vec<(usize, &Record)> = self.records.values().enumerate().collect();
        order.sort_by_key(|(_, record)| record.key.create_tid);
        let mut elements = vec![Element::new_zeroed(); order.len()];
        let mut stored: BTreeMap<(u32, usize), Vec<Offset>> = BTreeMap::new();
        for (index, record) in order {
            let data = record.data.get()?;
            if data.len() > MAX_RECORD_DATA {
                return Err(Error::Description(format!("{:?}: more than 64 KiB of data", record.key)));
            }
            let old = record.key.create_tid < self.old_crc_before;
            let crc = data_crc(record.key.rec_type, &data, if old { Flavor::Iso } else { flavor });
            let at = if data.is_empty() {
                Offset::NONE
            } else {
                let twins = stored.entry((crc, data.len())).or_default();
                let share = self.dedup && record.key.rec_type == RecType::DATA.0;
                let mut twin = None;
                for &at in twins.iter().filter(|_| share) {
                    if *image.read(at, data.len())? == *data {
                        twin = Some(at);
                        break;
                    }
                }
                match twin {
                    Some(at) => {
                        space.share(at, data.len());
                        at
                    }
                    None => {
                        let at = space.alloc(record.zone(), data.len())?;
                        image.write(at, &data)?;
                        if share {
                            twins.push(at);
                        }
                        at
                    }
                }
            };
            elements[index] = element(record, at, crc);
        }
        Ok(elements)
    }
}

fn element(record: &Record, at: Offset, crc: u32) -> Element {
    let base = BaseElement {
        obj_id: record.key.obj_id.into(),
        key: record.key.key.into(),
        create_tid: record.key.create_tid.0.into(),
        delete_tid: record.delete_tid.0.into(),
        rec_type: record.key.rec_type.into(),
        obj_type: record.obj_type.0,
        btype: TYPE_RECORD,
        localization: record.key.localization.into(),
    };
    let tail = LeafTail {
        create_ts: record.create_ts.into(),
        delete_ts: record.delete_ts.into(),
        data_offset: at.0.into(),
        data_len: (record.data.len() as i32).into(),
        data_crc: crc.into(),
    };
    Element::leaf(base, tail)
}
