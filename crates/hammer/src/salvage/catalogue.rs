//! The newest version of every record that can be found, whatever the tree looks like.

use alloc::collections::BTreeMap;

use dfly_hal::Wait;

use super::Event;
use crate::btree::NodeRef;
use crate::error::Error;
use crate::freemap;
use crate::inspect::{Nodes, is_known};
use crate::media::Media;
use crate::ondisk::node::{Element, Key, NODE_SIZE, Node, TYPE_INTERNAL, TYPE_LEAF, TYPE_RECORD, Tid};
use crate::ondisk::record::RecType;
use crate::ondisk::{BIG_BLOCK_SIZE, Offset, Zone};
use crate::record::{Extent, Record};

/// What a record of the catalogue takes, in bytes: key, element, and a share of the map's nodes.
const ENTRY_BYTES: usize = 160;

/// Records by key, without their times.
pub(super) type Records = BTreeMap<Key, Element>;

/// How the records were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The tree could be walked from end to end, so that nothing else was looked for.
    pub tree_is_whole: bool,
    /// Leaves that were found.
    pub leaves: u64,
    /// Records that are there now, in the state that they were found in last.
    pub records: u64,
    /// Records that could not be remembered for want of memory.
    pub left_out: u64,
    /// Bytes of volumes that were looked through for nodes.
    pub scanned_bytes: u64,
}

pub(super) struct Catalogue<'m> {
    media: &'m Media,
    pub(super) records: Records,
    pub(super) report: Report,
    capacity: usize,
}

impl<'m> Catalogue<'m> {
    /// Collects what is there now: by the tree, and if that is broken by looking at every place that may hold a node.
    pub(super) fn collect(
        media: &'m Media,
        w: &mut dyn Wait,
        memory_bytes: usize,
        out: &mut dyn FnMut(Event),
    ) -> Self {
        let capacity = memory_bytes / ENTRY_BYTES;
        let mut all = Self { media, records: Records::new(), report: Report::default(), capacity };
        all.report.tree_is_whole = all.walk(w, out);
        if !all.report.tree_is_whole {
            all.scan(w, out);
        }
        // What was deleted last is not there now, and neither are its older versions.
        all.records.retain(|_, e| e.base.delete_tid.get() == 0);
        all.report.records = all.records.len() as u64;
        out(Event::Progress(all.report));
        all
    }

    /// Takes what the tree holds. Returns whether all of it could be seen.
    fn walk(&mut self, w: &mut dyn Wait, out: &mut dyn FnMut(Event)) -> bool {
        let mut nodes = Nodes::new(self.media);
        let (mut seen, mut expected, mut sound) = (0, 1, true);
        while let Some(next) = nodes.next(w) {
            let Ok(report) = next else {
                sound = false;
                continue;
            };
            seen += 1;
            sound &= report.checksum.is_some() && report.fault.is_none();
            match report.node.node_type {
                TYPE_LEAF => self.leaf(w, &report.node, report.checksum.is_some(), out),
                TYPE_INTERNAL => expected += report.node.len() as u64,
                _ => sound = false,
            }
        }
        sound && seen == expected
    }

    /// Looks for leaves in all big-blocks that may hold some.
    fn scan(&mut self, w: &mut dyn Wait, out: &mut dyn FnMut(Event)) {
        let media = self.media;
        for volume in media.volumes() {
            let number = volume.header.vol_no.get() as u8;
            for block in 0..volume.buffers_len.div_ceil(BIG_BLOCK_SIZE) {
                let at = Offset::new(Zone::BTREE, number, block * BIG_BLOCK_SIZE);
                let owner = freemap::layer2(media, w, at.in_zone(Zone::RAW_BUFFER)).ok().flatten();
                let trust = match owner.map(|o| Zone(o.zone)) {
                    Some(Zone::BTREE) => Trust::EachRecord,
                    Some(_) => continue,
                    // Nobody knows whose it is: what is found may be part of a file.
                    None => Trust::WholeNodes,
                };
                self.scan_block(w, at, trust, out);
            }
        }
    }

    fn scan_block(&mut self, w: &mut dyn Wait, block: Offset, trust: Trust, out: &mut dyn FnMut(Event)) {
        for position in (0..BIG_BLOCK_SIZE).step_by(NODE_SIZE) {
            let Some(at) = block.checked_add(position) else { return };
            let Ok(node) = NodeRef::load_unchecked(self.media, w, at) else { continue };
            self.report.scanned_bytes += NODE_SIZE as u64;
            let sealed = self.media.checksum().check(node.crc.get(), node.crc_bytes()).is_some();
            let candidate = sealed || trust == Trust::EachRecord;
            if node.node_type == TYPE_LEAF && candidate {
                // The page is let go before records are read, which may need its place.
                let copy = Node::clone(&node);
                drop(node);
                self.leaf(w, &copy, sealed, out);
            }
        }
        out(Event::Progress(self.report));
    }

    /// Takes the records of a leaf. Those of one with a wrong checksum must have a right one of their own.
    fn leaf(&mut self, w: &mut dyn Wait, leaf: &Node, sealed: bool, out: &mut dyn FnMut(Event)) {
        self.report.leaves += 1;
        let elements = if sealed { leaf.slots() } else { &leaf.elements[..] };
        for e in elements {
            if self.is_good(w, e, sealed) {
                self.add(e);
            }
        }
        out(Event::Progress(self.report));
    }

    fn is_good(&self, w: &mut dyn Wait, e: &Element, sealed: bool) -> bool {
        let rec_type = RecType(e.base.rec_type.get());
        let possible = e.base.btype == TYPE_RECORD && is_known(rec_type) && e.base.create_tid.get() > 1;
        if !possible || !Extent::of(e).is_ok_and(|x| x.check_range(self.media).is_ok()) {
            return false;
        }
        // What other records hang on is read now, file data when it is wanted.
        let now = !sealed || matches!(rec_type, RecType::INODE | RecType::DIRENTRY);
        !now || (e.as_leaf().data_crc.get() != 0 && self.load(w, e).is_ok())
    }

    fn load(&self, w: &mut dyn Wait, e: &Element) -> Result<Record, Error> {
        Record::load(self.media, w, e)
    }

    /// Keeps the newest version; of one version, that which knows of its end.
    fn add(&mut self, e: &Element) {
        let key = e.base.key().at(Tid::ZERO);
        let age = |e: &Element| (e.base.create_tid.get(), e.base.delete_tid.get());
        if let Some(known) = self.records.get_mut(&key) {
            if age(e) > age(known) {
                *known = *e;
            }
        } else if self.records.len() < self.capacity {
            self.records.insert(key, *e);
        } else {
            self.report.left_out += 1;
        }
    }
}

/// What may be believed of a node with a wrong checksum.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    EachRecord,
    WholeNodes,
}
