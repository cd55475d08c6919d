//! [`Limits`]: what one request to a device may be, and the check for it.

use crate::{BioJob, Failure, Op, Segments, Status};

/// Whether what was written is safe at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteCache {
    /// A completed write survives a power cut.
    None,
    /// A completed write survives a power cut after the next flush only, or if it was written with FUA.
    Volatile,
}

/// Whether the device can make one write durable by itself (FUA). Without, the submitter flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fua {
    /// It can.
    Native,
    /// It fails such writes with [`Failure::Unsupported`].
    Unsupported,
}

/// What lies under the device, a hint for those who order requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Medium {
    /// Seeks are free.
    SolidState,
    /// Seeks cost milliseconds.
    Rotational,
}

/// Whether the device can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// It can.
    ReadWrite,
    /// It fails writes with [`Failure::WriteProtected`].
    ReadOnly,
}

/// Limits of an operation on a range without data: discard, write-zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RangeLimits {
    /// The unit in which the device really does it; smaller ranges may be ignored (discard). At least a block.
    pub granularity_bytes: u32,
    /// The longest range of one request, a multiple of the block.
    pub max_bytes: u64,
}

/// What one request to a device may be. Obtained once, kept by value.
///
/// Alignments and boundaries are in bytes. A limit that a device does not have is at its type's maximum (or 1 for an
/// alignment).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a block: offsets and lengths are multiples of it. Never zero in limits made by [`Self::new`].
    pub block_bytes: u32,
    /// How many blocks the device has.
    pub blocks: u64,
    /// The longest read or write.
    pub max_bytes: u64,
    /// The most segments of memory in one read or write.
    pub max_segments: u32,
    /// The address of every segment of memory is a multiple of this.
    pub mem_align: u32,
    /// No read or write crosses a multiple of this offset (NVMe's NOIOB, a stripe); zero: no boundary.
    pub boundary_bytes: u64,
    /// Transfers of a multiple of this, aligned to it, are fastest; at least a block.
    pub optimal_bytes: u32,
    /// Whether the device can be written.
    pub access: Access,
    /// Whether writes need a flush.
    pub write_cache: WriteCache,
    /// Whether FUA works.
    pub fua: Fua,
    /// Limits of discards, if the device knows them.
    pub discard: Option<RangeLimits>,
    /// Limits of write-zeroes, if the device knows them.
    pub write_zeroes: Option<RangeLimits>,
    /// A hint.
    pub medium: Medium,
}

impl Limits {
    /// A writable solid-state device without a cache, that can do reads, writes and flushes of any length.
    /// A block size of zero is taken as one.
    pub const fn new(block_bytes: u32, blocks: u64) -> Self {
        let block_bytes = if block_bytes == 0 { 1 } else { block_bytes };
        Self {
            block_bytes,
            blocks,
            max_bytes: u64::MAX,
            max_segments: u32::MAX,
            mem_align: 1,
            boundary_bytes: 0,
            optimal_bytes: block_bytes,
            access: Access::ReadWrite,
            write_cache: WriteCache::None,
            fua: Fua::Native,
            discard: None,
            write_zeroes: None,
            medium: Medium::SolidState,
        }
    }

    /// Bytes of the device, saturating.
    pub const fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_bytes as u64)
    }

    /// What a device may promise whose requests go on to `lower` (too): the stricter of both in everything but the
    /// number of blocks, which stays. A device over several starts from the limits of one and stacks those of the others.
    pub fn stack(mut self, lower: &Self) -> Self {
        self.block_bytes = lcm(self.block_bytes, lower.block_bytes);
        self.max_bytes = self.max_bytes.min(lower.max_bytes);
        self.max_segments = self.max_segments.min(lower.max_segments);
        self.mem_align = lcm(self.mem_align, lower.mem_align);
        self.boundary_bytes = gcd(self.boundary_bytes, lower.boundary_bytes);
        self.optimal_bytes = lcm(self.optimal_bytes, lower.optimal_bytes);
        if lower.access == Access::ReadOnly {
            self.access = Access::ReadOnly;
        }
        if lower.write_cache == WriteCache::Volatile {
            self.write_cache = WriteCache::Volatile;
        }
        if lower.fua == Fua::Unsupported {
            self.fua = Fua::Unsupported;
        }
        self.discard = stack_range(self.discard, lower.discard);
        self.write_zeroes = stack_range(self.write_zeroes, lower.write_zeroes);
        if lower.medium == Medium::Rotational {
            self.medium = Medium::Rotational;
        }
        self
    }

    /// The limits of a device whose offset 0 is offset `start` of the device with these limits: boundaries move.
    pub fn shifted(mut self, start: u64) -> Self {
        if self.boundary_bytes != 0 {
            self.boundary_bytes = gcd(self.boundary_bytes, start);
        }
        self
    }

    /// Whether the device can take `job` as it is. Never overflows, whatever the job says.
    ///
    /// # Errors
    /// Those of [`Self::admit`], and [`Failure::TooLong`] where a splitter would help.
    pub fn check(&self, job: &BioJob) -> Status {
        self.admit(job)?;
        if self.fitting(job) < job.len() { Err(Failure::TooLong) } else { Ok(()) }
    }

    /// Whether the device can do `job` if it may split it.
    ///
    /// # Errors
    /// [`Failure::Unsupported`], [`Failure::Misaligned`], and those of [`Self::admit_range`].
    pub fn admit(&self, job: &BioJob) -> Status {
        let op = job.op();
        match op {
            Op::Discard if self.discard.is_none() => return Err(Failure::Unsupported),
            Op::WriteZeroes if self.write_zeroes.is_none() => return Err(Failure::Unsupported),
            _ => {}
        }
        if op.is_write() && job.is_fua() && self.fua == Fua::Unsupported {
            return Err(Failure::Unsupported);
        }
        self.admit_range(job)?;
        let block = u64::from(self.block_bytes.max(1));
        if !job.offset().is_multiple_of(block) || !job.len().is_multiple_of(block) {
            return Err(Failure::Misaligned);
        }
        let align = self.mem_align as usize;
        if align > 1 && job.segments().any(|s| !s.ptr.addr().get().is_multiple_of(align)) {
            return Err(Failure::Misaligned);
        }
        Ok(())
    }

    /// Whether `job` stays within the device, and changes it only if it may be changed: what a layer must check itself
    /// that leaves the rest to the device below.
    ///
    /// # Errors
    /// [`Failure::WriteProtected`], [`Failure::OutOfRange`]; [`Failure::NoMemory`] if the originator sent a read or a
    /// write again after it had taken the memory out.
    pub fn admit_range(&self, job: &BioJob) -> Status {
        if job.op().is_write() && self.access == Access::ReadOnly {
            return Err(Failure::WriteProtected);
        }
        if job.op().has_data() && job.data().remaining() as u64 != job.len() {
            return Err(Failure::NoMemory);
        }
        match job.offset().checked_add(job.len()) {
            Some(end) if end <= self.bytes() => Ok(()),
            _ => Err(Failure::OutOfRange),
        }
    }

    /// How many bytes from the front of `job` one request may have: the job's length if it fits, zero if not even a
    /// block does.
    pub fn fitting(&self, job: &BioJob) -> u64 {
        self.fitting_rest(job.op(), job.offset(), job.len(), job.segments())
    }

    /// How many bytes of a request `op` at `offset` of `len` bytes one request may have, memory aside.
    pub(crate) fn fitting_len(&self, op: Op, offset: u64, len: u64) -> u64 {
        let block = u64::from(self.block_bytes.max(1));
        let mut fit = len.min(match op {
            Op::Flush => return len,
            Op::Discard => self.discard.map_or(0, |d| d.max_bytes),
            Op::WriteZeroes => self.write_zeroes.map_or(0, |z| z.max_bytes),
            Op::Read | Op::Write => self.max_bytes,
        });
        if self.boundary_bytes != 0 && op.has_data() {
            fit = fit.min(self.boundary_bytes - offset % self.boundary_bytes);
        }
        whole(fit, len, block)
    }

    /// As [`Self::fitting`], for what is left of a job.
    pub(crate) fn fitting_rest(&self, op: Op, offset: u64, len: u64, segments: Segments<'_>) -> u64 {
        let mut fit = self.fitting_len(op, offset, len);
        if self.max_segments != u32::MAX && op.has_data() {
            let mut sum = 0u64;
            for s in segments.take(self.max_segments as usize) {
                sum = sum.saturating_add(s.len as u64);
                if sum >= fit {
                    break;
                }
            }
            fit = fit.min(sum);
        }
        whole(fit, len, u64::from(self.block_bytes.max(1)))
    }
}

/// `fit` cut to whole blocks, unless it is all of `len`.
fn whole(fit: u64, len: u64, block: u64) -> u64 {
    if fit >= len { len } else { fit - fit % block }
}

fn stack_range(upper: Option<RangeLimits>, lower: Option<RangeLimits>) -> Option<RangeLimits> {
    let (upper, lower) = (upper?, lower?);
    Some(RangeLimits {
        granularity_bytes: lcm(upper.granularity_bytes, lower.granularity_bytes),
        max_bytes: upper.max_bytes.min(lower.max_bytes),
    })
}

/// The greatest common divisor; zero stands for "every number", as for a missing boundary.
fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The least common multiple of two alignments, saturating. Zero counts as one.
fn lcm(a: u32, b: u32) -> u32 {
    let (a, b) = (u64::from(a.max(1)), u64::from(b.max(1)));
    u32::try_from(a / gcd(a, b) * b).unwrap_or(u32::MAX)
}
