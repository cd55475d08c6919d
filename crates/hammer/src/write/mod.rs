//! Writing: operations, transaction groups, commits. `DESIGN.md`, part "Writing", tells how the files work together.

mod commit;
mod group;
mod op;
mod space;
mod tree;
mod undo;

use dfly_bio::SharedBuf;
use dfly_hal::Wait;

use self::group::{Fences, Group};
pub(crate) use self::op::Op;
use self::op::{ALLOCATED_ZONES, FIRST_ALLOCATED, Figures};
use self::undo::UndoWriter;
use crate::error::{Error, Structure};
use crate::media::Media;
use crate::ondisk::node::Tid;
use crate::ondisk::volume::VolumeHeader;
use crate::ondisk::{Offset, Zone};
use crate::recovery::Recovered;

/// Versions that are written.
const VERSIONS: core::ops::RangeInclusive<u32> = 6..=7;

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

/// What was written since the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteStats {
    /// Groups that were committed.
    pub(crate) commits: u64,
    /// Bytes of UNDO records.
    pub(crate) undo_bytes: u64,
    /// Pages of file data.
    pub(crate) data_pages: u64,
    /// Pages of metadata.
    pub(crate) metadata_pages: u64,
    /// Flushes of all volumes.
    pub(crate) flushes: u64,
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

    /// Does one operation, all of it or nothing, at `now_us` microseconds since the epoch. Commits first if the group
    /// is full. May block.
    pub(crate) fn operate<R, E: From<Error>>(
        &mut self,
        media: &Media,
        w: &mut dyn Wait,
        now_us: u64,
        work: impl FnOnce(&mut Op<'_, '_>, &mut dyn Wait) -> Result<R, E>,
    ) -> Result<R, E> {
        if self.halted {
            return Err(Error::Halted.into());
        }
        if self.is_full() {
            self.commit(media, w)?;
        }
        let mut op = Op::new(media, self.group.tid, now_us, &self.fences, self.figures);
        let answer = work(&mut op, w)?;
        let changes = op.changes;
        self.group.absorb(media, w, changes, &mut self.figures, &mut self.fences)?;
        Ok(answer)
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
