//! A queue pair with its memory: what the controller reads and writes.

use dfly_hal::dma::{Coherent, Constraints, Dma, DmaError};
use dfly_hal::regs::Window;
use zerocopy::little_endian::U32;

use crate::queue::{Arrivals, Arrived, Broken, Identifiers, Submission};
use crate::spec::{Command, Completion, StatusField, cq_doorbell, sq_doorbell};

pub(crate) struct Pair<H: Dma> {
    pub(crate) qid: u16,
    dstrd: u8,
    commands: Coherent<Command, H>,
    completions: Coherent<Completion, H>,
    sq: Submission,
    cq: Arrivals,
    pub(crate) ids: Identifiers,
}

impl<H: Dma + Clone> Pair<H> {
    /// Two empty rings of `size_z` + 1 entries, and as many identifiers as fit into them.
    pub(crate) fn new(hal: &H, qid: u16, size_z: u16, page_bytes: u32, dstrd: u8) -> Result<Self, DmaError> {
        let constraints = Constraints { align: page_bytes, ..Constraints::ANY };
        let entries = usize::from(size_z) + 1;
        Ok(Self {
            qid,
            dstrd,
            commands: Coherent::alloc(hal.clone(), entries, &constraints)?,
            completions: Coherent::alloc(hal.clone(), entries, &constraints)?,
            sq: Submission::new(size_z),
            cq: Arrivals::new(size_z),
            // No more than the submission queue has room for, so it is never full while an identifier is free.
            ids: Identifiers::new(size_z),
        })
    }

    /// The addresses of the submission and the completion queue.
    pub(crate) fn bases(&self) -> (u64, u64) {
        (
            self.commands.device_addr(0).map_or(0, |at| at.0),
            self.completions.device_addr(0).map_or(0, |at| at.0),
        )
    }

    /// Writes a command that the controller sees at the next doorbell. `false`: no room, which identifiers prevent.
    pub(crate) fn push(&mut self, cid: u16, command: Command) -> bool {
        let Some(index) = self.sq.push() else { return false };
        self.commands.set(index.into(), Command { cid: cid.into(), ..command }).is_ok()
    }

    /// Tells the controller of what was pushed. Returns how many doorbells that took: 0 or 1.
    pub(crate) fn ring(&mut self, window: &impl Window) -> u64 {
        let Some(tail) = self.sq.doorbell() else { return 0 };
        // The entries before the doorbell.
        self.commands.hal().wmb();
        sq_doorbell(self.qid, self.dstrd).write(window, tail.into());
        1
    }

    /// The next completion and whose it is, if one arrived.
    pub(crate) fn next(&mut self) -> Result<Option<(Arrived, Completion)>, Broken> {
        let (index, phase) = self.cq.expected();
        let word: Option<U32> = self.completions.get_part(index.into(), 12);
        let status = word.map_or(0, |word| (word.get() >> 16) as u16);
        if word.is_none() || StatusField::from_bits(status).phase() != phase {
            return Ok(None);
        }
        // The phase before the rest, and before the data.
        self.completions.hal().rmb();
        let Some(entry) = self.completions.get(index.into()) else { return Ok(None) };
        if entry.sqid.get() != self.qid {
            return Err(Broken::WrongQueue { sqid: entry.sqid.get(), qid: self.qid });
        }
        self.sq.consumed(entry.sqhd.get())?;
        let arrived = self.ids.arrive(entry.cid.get())?;
        self.cq.advance();
        Ok(Some((arrived, entry)))
    }

    /// Gives the read entries back to the controller, and then their identifiers to new commands.
    pub(crate) fn acknowledge(&mut self, window: &impl Window) {
        if let Some(head) = self.cq.doorbell() {
            cq_doorbell(self.qid, self.dstrd).write(window, head.into());
            self.ids.reuse();
        }
    }
}
