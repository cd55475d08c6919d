//! Who writes, when: operations one after the other, commits beside them.
//!
//! Locks, in this order: a commit's turn, the engine, the gate.

use alloc::boxed::Box;
use alloc::vec::Vec;

use dfly_hal::Wait;
use dfly_hal::sync::{Lock, WaitLock};
use dfly_vfs::Timestamp;
use hashbrown::HashMap;

use super::gate::Gate;
use super::op::Op;
use super::{Engine, WriteStats};
use crate::error::Error;
use crate::media::Media;
use crate::object::ObjectId;

/// Tells the time of day. A closure will do.
pub trait WallClock: Send + Sync {
    /// The time. Never blocks.
    fn now(&self) -> Timestamp;
}

impl<F: Fn() -> Timestamp + Send + Sync> WallClock for F {
    fn now(&self) -> Timestamp {
        self()
    }
}

/// Files that somebody has open, and objects that wait for their end.
#[derive(Default)]
struct Opens {
    next: u64,
    files: HashMap<u64, ObjectId>,
    counts: HashMap<ObjectId, u32>,
    /// Without a name.
    nameless: Vec<ObjectId>,
}

/// The writing half of a mount, for many threads.
pub(crate) struct Writer {
    /// Held by who brings a group to the disk.
    turn: WaitLock<()>,
    pub(super) engine: WaitLock<Engine>,
    pub(crate) gate: Gate,
    clock: Box<dyn WallClock>,
    opens: Lock<Opens>,
}

impl Writer {
    pub(crate) fn new(engine: Engine, clock: Box<dyn WallClock>) -> Self {
        Self {
            turn: WaitLock::new(()),
            engine: WaitLock::new(engine),
            gate: Gate::new(),
            clock,
            opens: Lock::new(Opens::default()),
        }
    }

    /// Does one operation, all of it or nothing. Commits first if the group is full. May block.
    pub(crate) fn operate<R, E: From<Error>>(
        &self,
        media: &Media,
        w: &mut dyn Wait,
        work: impl FnOnce(&mut Op<'_, '_>, &mut dyn Wait) -> Result<R, E>,
    ) -> Result<R, E> {
        loop {
            let mut engine = self.engine.lock(w);
            if engine.is_full() {
                drop(engine);
                self.commit(media, w)?;
                continue;
            }
            let now_us = u64::try_from(self.clock.now().as_micros()).unwrap_or(0);
            let mut op = engine.begin(media, now_us)?;
            let answer = work(&mut op, w)?;
            let changes = op.changes;
            let _alone = self.gate.alone(w);
            engine.absorb(media, w, changes)?;
            return Ok(answer);
        }
    }

    /// Brings the open group to the disk, where a crash may still undo it. Operations go on meanwhile. May block.
    pub(crate) fn commit(&self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        let _turn = self.turn.lock(w);
        self.commit_in_turn(media, w)
    }

    fn commit_in_turn(&self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        let frozen = {
            let mut engine = self.engine.lock(w);
            let _alone = self.gate.alone(w);
            engine.freeze(media, w)?
        };
        let Some(commit) = frozen else { return Ok(()) };
        let written = commit.write(media, w);
        self.engine.lock(w).committed(written)
    }

    /// Makes all that was done durable for good. May block.
    pub(crate) fn sync(&self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        let _turn = self.turn.lock(w);
        self.commit_in_turn(media, w)?;
        let Some(settlement) = self.engine.lock(w).settlement(media)? else { return Ok(()) };
        let settled = settlement.write(media, w);
        self.engine.lock(w).settled(settled)
    }

    /// Big-blocks that are free, and inodes. May block.
    pub(crate) fn figures(&self, w: &mut dyn Wait) -> (i64, i64) {
        let figures = self.engine.lock(w).figures;
        (figures.free_big_blocks, figures.inodes)
    }

    /// What was written so far. May block.
    pub(crate) fn stats(&self, w: &mut dyn Wait) -> WriteStats {
        self.engine.lock(w).stats()
    }

    /// Keeps an object's contents until the number that is returned is closed.
    pub(crate) fn open(&self, id: ObjectId) -> u64 {
        let mut opens = self.opens.lock();
        opens.next += 1;
        let number = opens.next;
        opens.files.insert(number, id);
        *opens.counts.entry(id).or_insert(0) += 1;
        number
    }

    /// Never blocks: what a last close sets off comes with the next operation.
    pub(crate) fn close(&self, number: u64) {
        let mut opens = self.opens.lock();
        let Some(id) = opens.files.remove(&number) else { return };
        if let Some(count) = opens.counts.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                opens.counts.remove(&id);
            }
        }
    }

    pub(crate) fn is_open(&self, id: ObjectId) -> bool {
        self.opens.lock().counts.contains_key(&id)
    }

    /// An object without a name, which ends when nobody has it open.
    pub(crate) fn leave(&self, id: ObjectId) {
        self.opens.lock().nameless.push(id);
    }

    /// Ends the nameless objects that nobody has open. May block.
    pub(crate) fn reap(&self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        while let Some(id) = self.next_nameless() {
            let done = self.operate(media, w, |op, w| match op.object(w, id)? {
                Some(object) if object.inode.nlinks.get() == 0 => op.destroy(w, &object),
                _ => Ok(true),
            });
            if !matches!(done, Ok(true)) {
                self.leave(id);
            }
            done?;
        }
        Ok(())
    }

    fn next_nameless(&self) -> Option<ObjectId> {
        let mut opens = self.opens.lock();
        let Opens { nameless, counts, .. } = &mut *opens;
        let at = nameless.iter().position(|id| !counts.contains_key(id))?;
        Some(nameless.swap_remove(at))
    }
}
