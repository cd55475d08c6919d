//! Writing: operations, transaction groups, commits. `DESIGN.md`, part "Writing", tells how the files work together.

mod commit;
mod content;
mod gate;
mod group;
mod inode;
mod names;
mod op;
mod records;
mod space;
mod tree;
mod undo;
mod writer;

use dfly_bio::SharedBuf;
use dfly_hal::Wait;

use self::group::{Fences, Group};
pub(crate) use self::inode::{Birth, Live};
pub(crate) use self::names::Farewell;
pub(crate) use self::op::Op;
use self::op::{ALLOCATED_ZONES, Changes, FIRST_ALLOCATED, Figures};
use self::undo::UndoWriter;
pub use self::writer::WallClock;
pub(crate) use self::writer::Writer;
use crate::error::{Error, Structure};
use crate::media::Media;
use crate::ondisk::node::Tid;
use crate::ondisk::volume::VolumeHeader;
use crate::ondisk::{Offset, Zone};
use crate::recovery::Recovered;

/// Versions that are written.
pub(crate) const VERSIONS: core::ops::RangeInclusive<u32> = 6..=7;

/// Transaction ids step by this much: the low bits are for a number of the machine.
const TID_STEP: u64 = 16;

/// What a group may hold before it is committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Pages of the cache that are changed.
    pub(crate) pages: usize,
    /// Bytes in the FIFO.
    undo_bytes: u64,
}

/// What was written since the mount. A page has 16 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriteStats {
    /// Transaction groups that were committed.
    pub commits: u64,
    /// Bytes of UNDO records.
    pub undo_bytes: u64,
    /// Pages with file data.
    pub data_pages: u64,
    /// Pages with metadata.
    pub metadata_pages: u64,
    /// Flushes of all volumes.
    pub flushes: u64,
}

/// The writing half of a mounted file system. Whoever has it is the only one to change anything.
pub(crate) struct Engine {
    /// The root volume's header as the last commit left it, in the buffer around it.
    header: SharedBuf,
    figures: Figures,
    group: Group,
    fences: Fences,
    undo: UndoWriter,
    /// The oldest UNDO record that a crash now would need: the next header says so.
    first: u64,
    /// Groups that cannot be undone any more once the last header that was written is durable.
    settled: u64,
    budget: Budget,
    stats: WriteStats,
    halted: bool,
}

impl Engine {
    /// Starts to write where `recovered` ends: what it restores is written first. May block.
    pub(crate) fn start(
        media: &mut Media,
        w: &mut dyn Wait,
        recovered: &Recovered,
        pages: usize,
    ) -> Result<Self, Error> {
        let unsupported = Error::corrupt(Structure::VolumeHeader, Offset::NONE, "version cannot be written");
        let version = media.header().vol_version.get();
        let seq = recovered.next_seq.filter(|_| VERSIONS.contains(&version)).ok_or(unsupported)?;
        let undo = UndoWriter::open(media, w, recovered.end, seq)?;
        let header = commit::read_header(media, w)?;
        let figures = Figures::of(media.header());
        let group = Group::new(1, Tid::ZERO);
        let undo_bytes = undo.size() / 4 - commit::UNDO_SLACK_BYTES;
        let mut engine = Self {
            header,
            figures,
            group,
            fences: Fences::default(),
            first: undo.position(),
            undo,
            settled: 0,
            budget: Budget { pages, undo_bytes },
            stats: WriteStats::default(),
            halted: false,
        };
        engine.group.tid = engine.figures.next_tid();
        if recovered.found.crashed {
            engine.write_restored(media, w)?;
        }
        media.restored();
        Ok(engine)
    }

    /// Begins an operation, at `now_us` microseconds since the epoch. If it is dropped, nothing has happened.
    fn begin<'m>(&self, media: &'m Media, now_us: u64) -> Result<Op<'m, '_>, Error> {
        self.check()?;
        Ok(Op::new(media, self.group.tid, now_us, &self.fences, self.figures))
    }

    /// Makes an operation's changes part of the open group. Nobody reads meanwhile. May block.
    fn absorb(&mut self, media: &Media, w: &mut dyn Wait, changes: Changes<'_>) -> Result<(), Error> {
        let done = self.group.absorb(media, w, changes, &mut self.figures, &mut self.fences);
        // Only then something of it may have happened.
        self.halted |= done == Err(Error::Halted);
        done
    }

    fn check(&self) -> Result<(), Error> {
        if self.halted { Err(Error::Halted) } else { Ok(()) }
    }

    /// What was written so far.
    pub(crate) fn stats(&self) -> WriteStats {
        self.stats
    }

    fn is_full(&self) -> bool {
        self.group.page_count() >= self.budget.pages || self.group.undo_bytes() >= self.budget.undo_bytes
    }
}

impl Figures {
    fn of(header: &VolumeHeader) -> Self {
        let rotor = |i: usize| {
            let zone = FIRST_ALLOCATED + i as u8;
            let map = header.vol0_blockmap.get(usize::from(zone));
            map.map_or(Offset::new(Zone(zone), 0, 0), |m| Offset(m.next_offset.get()))
        };
        Self {
            root: Offset(header.vol0_btree_root.get()),
            rotors: core::array::from_fn::<_, ALLOCATED_ZONES, _>(rotor),
            free_big_blocks: header.vol0_stat_freebigblocks.get(),
            inodes: header.vol0_stat_inodes.get(),
            last_tid: Tid(header.vol0_next_tid.get()),
        }
    }

    /// A new transaction id, above all others.
    fn next_tid(&mut self) -> Tid {
        self.last_tid = Tid((self.last_tid.0 / TID_STEP + 1).saturating_mul(TID_STEP));
        self.last_tid
    }
}

#[cfg(test)]
mod tests;
