//! An operation: changes that become visible together, or not at all.
//!
//! It reads through the cache and changes copies, in pieces of 4 KiB, which it looks into first. When it is done, the
//! group takes the pieces over; if anything fails before that, nothing has happened.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Deref;

use dfly_bio::Buf;
use dfly_hal::Wait;
use hashbrown::HashMap;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::group::Fences;
use crate::btree::{NodeRef, Source};
use crate::error::{Error, Structure};
use crate::media::Media;
use crate::ondisk::node::{NODE_SIZE, Node, Tid};
use crate::ondisk::{BUFFER_SIZE, Offset, Zone};
use crate::pages::Pages;

/// What is copied at once: a node, or as much of other metadata.
pub(crate) const PIECE: usize = NODE_SIZE;

/// The zones that space is allocated in, and the first of them.
pub(crate) const ALLOCATED_ZONES: usize = 4;
pub(crate) const FIRST_ALLOCATED: u8 = Zone::BTREE.0;

/// Big-blocks that are kept for removals: one for nodes, one for inodes.
const RESERVE: i64 = 2;

/// What the header says and operations change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) root: Offset,
    /// Where the next allocation in each zone is tried first.
    pub(crate) rotors: [Offset; ALLOCATED_ZONES],
    pub(crate) free_big_blocks: i64,
    pub(crate) inodes: i64,
    /// The highest transaction id that was used.
    pub(crate) last_tid: Tid,
}

/// A copy of a piece of metadata.
pub(super) struct Piece {
    pub(super) bytes: Box<[u8; PIECE]>,
    /// What kind of contents it has.
    pub(super) zone: Zone,
}

/// A whole page of file data that nothing refers to yet. Its frame goes back to the cache unless the page is taken over.
pub(super) struct NewPage<'m> {
    pages: &'m Pages,
    pub(super) at: Offset,
    pub(super) frame: u32,
    memory: Option<Buf>,
}

impl NewPage<'_> {
    pub(super) fn take(&mut self) -> Option<Buf> {
        self.memory.take()
    }
}

impl Drop for NewPage<'_> {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pages.give_back(self.frame, Some(memory));
        }
    }
}

/// What an operation did, for the group to take over.
pub(super) struct Changes<'m> {
    pub(super) figures: Figures,
    /// By raw address.
    pub(super) pieces: HashMap<Offset, Piece>,
    pub(super) new_pages: Vec<NewPage<'m>>,
    /// For each buffer that space was allocated in: from where on it was free before.
    pub(super) fresh: HashMap<Offset, usize>,
    /// Big-blocks that became free, by raw address.
    pub(super) freed: Vec<Offset>,
}

/// An operation under way.
pub(crate) struct Op<'m, 'e> {
    pub(crate) media: &'m Media,
    /// Becomes the `create_tid` and `delete_tid` of what it does.
    pub(crate) tid: Tid,
    /// The time, in microseconds since the epoch.
    pub(crate) now_us: u64,
    pub(super) fences: &'e Fences,
    /// Big-blocks that it must leave free.
    pub(super) reserve: i64,
    pub(super) changes: Changes<'m>,
}

impl<'m, 'e> Op<'m, 'e> {
    pub(super) fn new(media: &'m Media, tid: Tid, now_us: u64, fences: &'e Fences, figures: Figures) -> Self {
        let changes = Changes {
            figures,
            pieces: HashMap::new(),
            new_pages: Vec::new(),
            fresh: HashMap::new(),
            freed: Vec::new(),
        };
        Self { media, tid, now_us, fences, reserve: RESERVE, changes }
    }

    /// What makes room may take the last of it: a new version of an inode, a node for it.
    pub(crate) fn open_reserve(&mut self) {
        self.reserve = 0;
    }

    /// The time in seconds, as records carry it; never 0, which stands for none.
    pub(crate) fn now_s(&self) -> u32 {
        u32::try_from(self.now_us / 1_000_000).unwrap_or(u32::MAX).max(1)
    }

    /// Fills `to` with the bytes at `at`, as the operation sees them; they lie in one buffer. May block.
    pub(crate) fn read_bytes(&self, w: &mut dyn Wait, at: Offset, to: &mut [u8]) -> Result<(), Error> {
        let structure = Structure::Record;
        let outside = Error::OutOfRange { structure, at };
        let buffer = self.media.buffer(at, structure)?;
        let mut page = None;
        for (within, range) in pieces_of(at, to.len()) {
            let to = to.get_mut(range).ok_or(outside)?;
            let raw = buffer.checked_add(within as u64).ok_or(outside)?;
            let (start, inside) = split(raw);
            let from = match self.changes.pieces.get(&start) {
                Some(piece) => piece.bytes.get(inside..inside + to.len()),
                None => {
                    if page.is_none() {
                        page = Some(self.media.page(w, buffer, structure)?);
                    }
                    page.as_ref().and_then(|p| p.bytes().get(within..within + to.len()))
                }
            };
            to.copy_from_slice(from.ok_or(outside)?);
        }
        Ok(())
    }

    /// The structure at `at`. May block.
    pub(crate) fn read<T: FromBytes + IntoBytes>(&self, w: &mut dyn Wait, at: Offset) -> Result<T, Error> {
        let mut value = T::new_zeroed();
        self.read_bytes(w, at, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Changes the bytes at `at`, which lie in one buffer. May block.
    pub(crate) fn write_bytes(&mut self, w: &mut dyn Wait, at: Offset, from: &[u8]) -> Result<(), Error> {
        let outside = Error::OutOfRange { structure: Structure::Record, at };
        let buffer = at.in_zone(Zone::RAW_BUFFER).buffer();
        for (within, range) in pieces_of(at, from.len()) {
            let from = from.get(range).ok_or(outside)?;
            let raw = buffer.checked_add(within as u64).ok_or(outside)?;
            let (start, inside) = split(raw);
            let piece = self.piece(w, start.in_zone(at.zone()))?;
            piece.get_mut(inside..inside + from.len()).ok_or(outside)?.copy_from_slice(from);
        }
        Ok(())
    }

    /// Changes the structure at `at`. May block.
    pub(crate) fn write<T: IntoBytes + Immutable>(
        &mut self,
        w: &mut dyn Wait,
        at: Offset,
        value: &T,
    ) -> Result<(), Error> {
        self.write_bytes(w, at, value.as_bytes())
    }

    /// The node at `at`, checked, for changing. May block.
    pub(crate) fn edit_node(&mut self, w: &mut dyn Wait, at: Offset) -> Result<&mut Node, Error> {
        if !self.changes.pieces.contains_key(&at.in_zone(Zone::RAW_BUFFER)) {
            NodeRef::load(self.media, w, at)?;
        }
        Ok(zerocopy::transmute_mut!(self.piece(w, at)?))
    }

    /// A new node, zeroed. May block.
    pub(crate) fn new_node(&mut self, w: &mut dyn Wait) -> Result<(Offset, &mut Node), Error> {
        let at = self.allocate(w, Zone::BTREE, NODE_SIZE)?;
        let piece = self.piece(w, at)?;
        piece.fill(0);
        Ok((at, zerocopy::transmute_mut!(piece)))
    }

    /// Memory for a whole new page of file data at `at`, which was just allocated. May block.
    pub(crate) fn new_page(&mut self, at: Offset) -> Result<&mut [u8], Error> {
        let pages = self.media.pages();
        let (frame, memory) = pages.take_frame()?;
        let at = at.in_zone(Zone::RAW_BUFFER);
        self.changes.new_pages.push(NewPage { pages, at, frame, memory: Some(memory) });
        let page = self.changes.new_pages.last_mut().and_then(|p| p.memory.as_mut());
        Ok(page.ok_or(Error::NoMemory)?)
    }

    /// The copy of the piece that begins at `at`. May block.
    fn piece(&mut self, w: &mut dyn Wait, at: Offset) -> Result<&mut [u8; PIECE], Error> {
        let raw = at.in_zone(Zone::RAW_BUFFER);
        let buffer = self.media.buffer(raw, Structure::Record)?;
        let media = self.media;
        let changes = &mut self.changes;
        if !changes.pieces.contains_key(&raw) {
            let mut bytes = Box::new([0; PIECE]);
            // What was free until now need not be read: nobody looks at it.
            if changes.fresh.get(&buffer).is_none_or(|from| *from > raw.in_buffer()) {
                let page = media.page(w, buffer, Structure::Record)?;
                let from = page.bytes().get(raw.in_buffer()..raw.in_buffer() + PIECE);
                bytes.copy_from_slice(from.ok_or(Error::NoMemory)?);
            }
            changes.pieces.insert(raw, Piece { bytes, zone: at.zone() });
        }
        let piece = changes.pieces.get_mut(&raw).ok_or(Error::NoMemory)?;
        Ok(&mut piece.bytes)
    }
}

/// A node as an operation sees it.
pub(crate) enum NodeView<'s> {
    Changed(&'s Node),
    Cached(NodeRef),
}

impl Deref for NodeView<'_> {
    type Target = Node;
    fn deref(&self) -> &Node {
        match self {
            Self::Changed(node) => node,
            Self::Cached(node) => node,
        }
    }
}

impl Source for Op<'_, '_> {
    type Node<'s>
        = NodeView<'s>
    where
        Self: 's;

    fn root(&self) -> Offset {
        self.changes.figures.root
    }

    fn node(&self, w: &mut dyn Wait, at: Offset) -> Result<NodeView<'_>, Error> {
        match self.changes.pieces.get(&at.in_zone(Zone::RAW_BUFFER)) {
            Some(piece) if at.zone() == Zone::BTREE => {
                let node: &[u8; PIECE] = &piece.bytes;
                Ok(NodeView::Changed(zerocopy::transmute_ref!(node)))
            }
            _ => Ok(NodeView::Cached(NodeRef::load(self.media, w, at)?)),
        }
    }
}

/// The start of the piece that holds a raw address, and the place in it.
fn split(at: Offset) -> (Offset, usize) {
    let inside = at.in_buffer() % PIECE;
    (Offset(at.0 - inside as u64), inside)
}

/// How `len` bytes at `at` fall into pieces: where each part lies within its buffer, and which part it is.
fn pieces_of(at: Offset, len: usize) -> impl Iterator<Item = (usize, core::ops::Range<usize>)> {
    let first = at.in_buffer();
    let mut done = 0;
    core::iter::from_fn(move || {
        let within = first + done;
        let n = (PIECE - within % PIECE).min(len - done);
        let range = done..done + n;
        done += n;
        (n > 0 && within + n <= BUFFER_SIZE).then_some((within, range))
    })
}
