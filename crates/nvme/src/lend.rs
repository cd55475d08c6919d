//! The one place with unsafe code: lending a request's memory to the controller, and taking it back.
//!
//! A [`Slot`] owns the job whose memory is lent. It gives the job back only when told why the controller is done with it;
//! a slot that is dropped meanwhile leaks the memory.

use alloc::vec::Vec;

use core::ops::ControlFlow;

use dfly_bio::{BioJob, Op};
use dfly_hal::dma::{Constraints, Direction, Dma, DmaError, Mapping};

use crate::controller::Halted;
use crate::prp::{Builder, List, PrpError, Prps};
use crate::queue::Arrived;

/// Why the controller does not use the memory any more: what was seen, not what is hoped.
pub(crate) enum Done<'a> {
    /// The command's own completion arrived, its identifier was checked, and it was the first.
    Completed(Arrived),
    /// The controller was seen disabled (not ready after EN = 0), or is no longer on its bus.
    Stopped(#[expect(dead_code, reason = "evidence, not data")] &'a Halted),
    /// No doorbell was rung for it.
    NeverShown,
}

/// Why memory could not be lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LendError {
    /// The slot has a job already: a defect of this crate.
    InUse,
    Dma(DmaError),
    Prp(PrpError),
}

/// Room for one command's memory.
pub(crate) struct Slot {
    number: u16,
    job: Option<BioJob>,
    mappings: Vec<Mapping>,
}

impl Slot {
    /// The slot `number`, for jobs of up to `segments` segments. The only call here that allocates.
    pub(crate) fn new(number: u16, segments: usize) -> Self {
        Self { number, job: None, mappings: Vec::with_capacity(segments) }
    }

    /// The job, if there is one.
    pub(crate) fn job(&self) -> Option<&BioJob> {
        self.job.as_ref()
    }

    /// Keeps `job` and lends its memory, described by `list`. If that fails nothing is lent, and the job comes back.
    pub(crate) fn lend<H: Dma, L: List>(
        &mut self,
        hal: &H,
        job: BioJob,
        list: &mut L,
        page_bytes: u32,
    ) -> Result<Prps, (BioJob, LendError)> {
        if self.job.is_some() {
            return Err((job, LendError::InUse));
        }
        let held = self.job.insert(job);
        let direction = if held.op() == Op::Read { Direction::FromDevice } else { Direction::ToDevice };
        let mut builder = Builder::new(list, page_bytes);
        let mut error = None;
        for segment in held.segments() {
            let first = self.mappings.is_empty();
            if self.mappings.len() == self.mappings.capacity() {
                error = Some(LendError::Prp(PrpError::Full));
                break;
            }
            let constraints = Constraints {
                align: if first { 4 } else { page_bytes },
                inner_align: page_bytes,
                ..Constraints::ANY
            };
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
                Err(wrong) => {
                    error = Some(refused.map_or(LendError::Dma(wrong), LendError::Prp));
                    break;
                }
            }
        }
        let prps = builder.finish();
        match error.and_then(|error| Some((self.take_back(hal, Done::NeverShown)?, error))) {
            Some(failed) => Err(failed),
            None => Ok(prps),
        }
    }

    /// The job, with its memory out of the controller's reach. `hal` is the one it was lent with.
    pub(crate) fn take_back<H: Dma>(&mut self, hal: &H, why: Done<'_>) -> Option<BioJob> {
        if matches!(&why, Done::Completed(arrived) if arrived.slot() != self.number) {
            return None;
        }
        let job = self.job.take()?;
        for mapping in self.mappings.drain(..) {
            // SAFETY: mapped by `lend` with the HAL of this controller, and the controller is done with it: see `Done`.
            unsafe { hal.unmap(mapping) };
        }
        Some(job)
    }

    /// The job, with its memory still in the controller's reach: for [`BioJob::abandon`] and nothing else.
    fn give_up(&mut self) -> Option<BioJob> {
        // The mappings leak with the memory that they show.
        self.mappings.drain(..).for_each(core::mem::forget);
        self.job.take()
    }

    /// Answers the job of a controller that cannot be stopped; its memory leaks. Runs foreign code: no lock is held.
    pub(crate) fn abandon(&mut self) {
        if let Some(job) = self.give_up() {
            job.abandon();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.abandon();
    }
}
