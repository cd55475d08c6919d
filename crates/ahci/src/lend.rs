//! The one place with unsafe code: lending a request's memory to the adapter, and taking it back.
//!
//! A [`Slot`] owns the job whose memory is lent. It gives the job back only for a [`Back`], of which [`Slots`] gives one for
//! each time that the adapter is done with a slot; a slot that is dropped meanwhile leaks the memory.
//!
//! [`Slots`]: crate::slots::Slots

use alloc::vec::Vec;

use core::ops::ControlFlow;

use dfly_bio::{BioJob, Op};
use dfly_hal::dma::{Constraints, Direction, Dma, DmaError, Mapping};

use crate::prdt::{Builder, PrdtError, Table};
use crate::slots::Back;

/// Why memory could not be lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LendError {
    /// The slot has a job already: a defect of this crate.
    InUse,
    Dma(DmaError),
    Prdt(PrdtError),
}

/// Room for one command's memory.
pub(crate) struct Slot {
    number: u8,
    job: Option<BioJob>,
    mappings: Vec<Mapping>,
}

impl Slot {
    /// The slot `number`, for jobs of up to `segments` segments. The only call here that allocates.
    pub(crate) fn new(number: u8, segments: usize) -> Self {
        Self { number, job: None, mappings: Vec::with_capacity(segments) }
    }

    /// The job, if there is one.
    pub(crate) fn job(&self) -> Option<&BioJob> {
        self.job.as_ref()
    }

    /// Keeps `job` and lends its memory, described by `table`; returns the number of entries. If it fails the job stays
    /// here, to be taken back.
    pub(crate) fn lend<H: Dma, T: Table>(
        &mut self,
        hal: &H,
        job: BioJob,
        table: &mut T,
        addr_mask: u64,
    ) -> Result<u16, LendError> {
        if self.job.is_some() {
            // The new one is answered as its destructor does.
            return Err(LendError::InUse);
        }
        let held = self.job.insert(job);
        let direction = if held.op() == Op::Read { Direction::FromDevice } else { Direction::ToDevice };
        let constraints = Constraints { addr_mask, align: 2, inner_align: 2, ..Constraints::ANY };
        let mut builder = Builder::new(table);
        for segment in held.segments() {
            if self.mappings.len() == self.mappings.capacity() {
                return Err(LendError::Prdt(PrdtError::Full));
            }
            let mut refused = None;
            let mut sink = |part: dfly_hal::dma::Segment| match builder.push(part.addr.0, part.len.into()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(wrong) => {
                    refused = Some(wrong);
                    ControlFlow::Break(())
                }
            };
            // SAFETY: the bytes are the job's, which this slot keeps until `take_back` has unmapped them; a device may
            // write those of a read, which nobody else sees, and only reads the others.
            let mapped = unsafe { hal.map(segment.ptr, segment.len, direction, &constraints, &mut sink) };
            match mapped {
                Ok(mapping) => self.mappings.push(mapping),
                Err(wrong) => return Err(refused.map_or(LendError::Dma(wrong), LendError::Prdt)),
            }
        }
        Ok(builder.finish())
    }

    /// The job, with its memory out of the adapter's reach. `hal` is the one it was lent with.
    pub(crate) fn take_back<H: Dma>(&mut self, hal: &H, back: Back) -> Option<BioJob> {
        if back.slot() != self.number {
            return None;
        }
        let job = self.job.take()?;
        for mapping in self.mappings.drain(..) {
            // SAFETY: mapped by `lend` with the HAL of this adapter, and the adapter is done with it: see `Back`.
            unsafe { hal.unmap(mapping) };
        }
        Some(job)
    }

    /// Answers the job of an adapter that cannot be stopped; its memory leaks, and with it the mappings that show it. Runs
    /// foreign code: no lock is held.
    pub(crate) fn abandon(&mut self) {
        self.mappings.drain(..).for_each(core::mem::forget);
        if let Some(job) = self.job.take() {
            job.abandon();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.abandon();
    }
}
