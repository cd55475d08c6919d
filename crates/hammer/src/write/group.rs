//! A transaction group: the changes that the next commit makes durable together.
//!
//! Its pages are pinned in the cache, and of each page that held something before, the bytes of the last commit are kept
//! beside it. What UNDO must restore is the difference of the two, so no operation has to say what it changes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use dfly_bio::{Frozen, SharedBuf};
use dfly_hal::Wait;
use hashbrown::HashMap;
use zerocopy::IntoBytes;

use super::op::{Changes, Figures, PIECE};
use super::undo::{self, UndoWriter};
use crate::error::{Error, Structure};
use crate::media::{Media, Place};
use crate::ondisk::node::{NODE_SIZE, Node, Tid};
use crate::ondisk::{BUFFER_SIZE, Offset, Zone};

/// Big-blocks that became free in groups that a crash could still undo.
#[derive(Default)]
pub(crate) struct Fences {
    /// By raw address: the group that freed it.
    blocks: HashMap<Offset, u64>,
}

impl Fences {
    pub(crate) fn holds(&self, block: Offset) -> bool {
        self.blocks.contains_key(&block)
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Groups up to this one can no longer be undone.
    pub(super) fn lift(&mut self, permanent: u64) {
        self.blocks.retain(|_, freed_in| *freed_in > permanent);
    }
}

/// A page that the group has changed.
struct Dirty {
    /// Its bytes as of the last commit, where UNDO must be able to restore some.
    before: Option<SharedBuf>,
    /// From here on the buffer was free as of the last commit.
    fresh_from: usize,
    /// Pieces that were changed, a bit each.
    touched: u8,
    /// Those of them that are nodes: their checksums are made at the commit.
    nodes: u8,
    is_data: bool,
}

/// The group that operations go into.
pub(crate) struct Group {
    /// Counts the groups of this mount.
    pub(crate) number: u64,
    pub(crate) tid: Tid,
    pages: BTreeMap<Offset, Dirty>,
    /// The most that its UNDO records can take, in bytes.
    undo_bytes: u64,
    /// Whether something was changed that is no page.
    figures_changed: bool,
}

/// A group's pages on their way to the disk.
pub(super) struct Pages {
    /// File data, in ascending order.
    pub(super) data: Vec<(Place, Frozen)>,
    /// Metadata, in ascending order.
    pub(super) metadata: Vec<(Place, Frozen)>,
}

impl Group {
    pub(super) fn new(number: u64, tid: Tid) -> Self {
        Self { number, tid, pages: BTreeMap::new(), undo_bytes: 0, figures_changed: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty() && !self.figures_changed
    }

    /// Pages that are pinned.
    pub(crate) fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// The most that its UNDO records can take, in bytes.
    pub(crate) fn undo_bytes(&self) -> u64 {
        self.undo_bytes
    }

    /// Takes over what an operation did. If that fails, but for [`Error::Halted`], nothing has happened. May block.
    pub(super) fn absorb(
        &mut self,
        media: &Media,
        w: &mut dyn Wait,
        mut changes: Changes<'_>,
        figures: &mut Figures,
        fences: &mut Fences,
    ) -> Result<(), Error> {
        // What can fail comes first. A page that is pinned and then not changed does no harm.
        for (&at, piece) in &changes.pieces {
            let buffer = at.buffer();
            let fresh = changes.fresh.get(&buffer).copied().unwrap_or(BUFFER_SIZE);
            self.pin(media, w, buffer, piece.zone, fresh)?;
        }
        for page in &mut changes.new_pages {
            let memory = page.take().ok_or(Error::NoMemory)?;
            media.pages().pin_new(page.frame, page.at, memory)?;
            let new = Dirty { before: None, fresh_from: 0, touched: 0, nodes: 0, is_data: true };
            self.pages.insert(page.at, new);
        }
        for (&at, piece) in &changes.pieces {
            let Some(dirty) = self.pages.get_mut(&at.buffer()) else { continue };
            let bit = 1 << (at.in_buffer() / PIECE);
            if dirty.touched & bit == 0 && dirty.before.is_some() {
                self.undo_bytes += undo::worst_case(PIECE);
            }
            dirty.touched |= bit;
            if piece.zone == Zone::BTREE {
                dirty.nodes |= bit;
            }
            // A pinned page has memory of its own; were it not so, half of the operation would have happened.
            media.pages().patch(at.buffer(), at.in_buffer(), &*piece.bytes).ok_or(Error::Halted)?;
            if piece.zone == Zone::BTREE {
                // Its checksum comes later; that it is right is known.
                media.pages().set_pinned_node_verified(at);
            }
        }
        self.figures_changed |= *figures != changes.figures;
        *figures = changes.figures;
        media.set_btree_root(figures.root);
        fences.blocks.extend(changes.freed.iter().map(|block| (*block, self.number)));
        Ok(())
    }

    /// Makes a page the group's own.
    fn pin(
        &mut self,
        media: &Media,
        w: &mut dyn Wait,
        buffer: Offset,
        zone: Zone,
        fresh_from: usize,
    ) -> Result<(), Error> {
        if let Some(dirty) = self.pages.get_mut(&buffer) {
            dirty.fresh_from = dirty.fresh_from.min(fresh_from);
            return Ok(());
        }
        let is_data = matches!(zone, Zone::LARGE_DATA | Zone::SMALL_DATA);
        let mut before = None;
        if fresh_from == 0 {
            let (frame, mut memory) = media.pages().take_frame()?;
            memory.fill(0);
            media.pages().pin_new(frame, buffer, memory)?;
        } else {
            let page = media.page(w, buffer, Structure::Record)?;
            before = Some(media.pages().pin_copy(page)?).filter(|_| !is_data);
        }
        self.pages.insert(buffer, Dirty { before, fresh_from, touched: 0, nodes: 0, is_data });
        Ok(())
    }

    /// Makes the checksums of the nodes that were changed. May block.
    pub(super) fn seal(&self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        let flavor = media.checksum().newest();
        for (&buffer, dirty) in &self.pages {
            for index in (0..BUFFER_SIZE / NODE_SIZE).filter(|i| dirty.nodes & 1 << i != 0) {
                let at = Offset(buffer.0 + (index * NODE_SIZE) as u64);
                let page = media.page(w, buffer, Structure::Node)?;
                let crc = flavor.of(page.node(at).crc_bytes());
                drop(page);
                let crc = zerocopy::little_endian::U32::new(crc);
                let field = at.in_buffer() + core::mem::offset_of!(Node, crc);
                media.pages().patch(buffer, field, crc.as_bytes()).ok_or(Error::CacheBusy)?;
            }
        }
        Ok(())
    }

    /// Logs what the group replaces, and lets go of its pages. Their checksums were made. May block.
    pub(super) fn freeze(
        self,
        media: &Media,
        w: &mut dyn Wait,
        undo: &mut UndoWriter,
    ) -> Result<Pages, Error> {
        let mut out = Pages { data: Vec::new(), metadata: Vec::new() };
        for (buffer, dirty) in self.pages {
            if let Some(before) = &dirty.before {
                let page = media.page(w, buffer, Structure::Record)?;
                let old = before.get(..dirty.fresh_from).unwrap_or(before);
                let new = page.bytes().get(..old.len()).unwrap_or_default();
                undo.log_changes(buffer, old, new)?;
            }
            let frozen = media.pages().unpin(buffer).ok_or(Error::CacheBusy)?;
            let list = if dirty.is_data { &mut out.data } else { &mut out.metadata };
            list.push((Place::Buffer(buffer), frozen));
        }
        Ok(out)
    }
}
