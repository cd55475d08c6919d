//! Blocking helpers for tools and tests: they allocate and copy once.

use dfly_hal::Wait;

use crate::{Bio, BioError, BlockDevice, Buf, Failure, Limits, Op};

/// Bytes that one request of these helpers carries at most.
const CHUNK_BYTES: u64 = 1 << 20;

/// Reads `to.len()` bytes from byte `at` on; neither needs to be aligned. May block; allocates a buffer for
/// each MiB.
///
/// # Errors
/// The failure of the first request that failed, or [`Failure::OutOfRange`]; `to` is then filled in part.
pub fn read_at(
    dev: &(impl BlockDevice + ?Sized),
    w: &mut (impl Wait + ?Sized),
    at: u64,
    to: &mut [u8],
) -> Result<(), BioError> {
    let limits = dev.limits();
    let whole = covering(Op::Read, &limits, at, to.len())?;
    let mut rest = to;
    let mut skip = (at - whole.start) as usize;
    let mut bio = Bio::new();
    let mut pos = whole.start;
    while !rest.is_empty() {
        let len = chunk(&limits, pos, whole.end - pos);
        bio.read(pos, buffer(Op::Read, &limits, pos, len)?);
        bio = bio.call(dev, w);
        bio.result()?;
        let mut bytes = bio.bytes();
        bytes.skip_bytes(skip);
        let done = bytes.copy_to(rest);
        if done == 0 {
            // The device gave the memory to somebody else, or the arithmetic here is wrong; either way do not loop.
            return Err(BioError { op: Op::Read, offset: pos, len, failure: Failure::Device });
        }
        rest = rest.get_mut(done..).unwrap_or_default();
        skip = 0;
        pos += len;
    }
    Ok(())
}

/// Writes all of `from` from byte `at` on, both multiples of the block. May block; allocates a buffer for
/// each MiB.
///
/// # Errors
/// The failure of the first request that failed; what precedes it is written. [`Failure::Misaligned`] writes nothing.
pub fn write_at(
    dev: &(impl BlockDevice + ?Sized),
    w: &mut (impl Wait + ?Sized),
    at: u64,
    from: &[u8],
) -> Result<(), BioError> {
    let limits = dev.limits();
    let whole = covering(Op::Write, &limits, at, from.len())?;
    if whole != (at..at + from.len() as u64) {
        return Err(BioError {
            op: Op::Write,
            offset: at,
            len: from.len() as u64,
            failure: Failure::Misaligned,
        });
    }
    let mut rest = from;
    let mut bio = Bio::new();
    let mut pos = at;
    while !rest.is_empty() {
        let len = chunk(&limits, pos, whole.end - pos);
        let mut buf = buffer(Op::Write, &limits, pos, len)?;
        let (now, later) = rest.split_at(buf.len().min(rest.len()));
        buf.copy_from_slice(now);
        bio.write(pos, buf);
        bio = bio.call(dev, w);
        bio.result()?;
        rest = later;
        pos += len;
    }
    Ok(())
}

/// Makes durable what was written. May block.
///
/// # Errors
/// The device's failure.
pub fn flush(dev: &(impl BlockDevice + ?Sized), w: &mut (impl Wait + ?Sized)) -> Result<(), BioError> {
    let mut bio = Bio::new();
    bio.flush();
    bio.call(dev, w).result()
}

/// The blocks that cover `len` bytes at `at`.
fn covering(op: Op, limits: &Limits, at: u64, len: usize) -> Result<core::ops::Range<u64>, BioError> {
    let len = len as u64;
    let out = BioError { op, offset: at, len, failure: Failure::OutOfRange };
    let block = u64::from(limits.block_bytes.max(1));
    let end = at.checked_add(len).filter(|&end| end <= limits.bytes()).ok_or(out)?;
    Ok(at - at % block..end.checked_next_multiple_of(block).ok_or(out)?)
}

/// How long the request at `pos` may be, `left` bytes being wanted.
fn chunk(limits: &Limits, pos: u64, left: u64) -> u64 {
    let block = u64::from(limits.block_bytes.max(1));
    // At least a block: where the device takes less, its own check answers.
    limits.fitting_len(Op::Read, pos, left.min(CHUNK_BYTES.next_multiple_of(block))).max(block.min(left))
}

fn buffer(op: Op, limits: &Limits, offset: u64, len: u64) -> Result<Buf, BioError> {
    let align = (limits.mem_align.max(1) as usize).next_power_of_two();
    usize::try_from(len).ok().and_then(|len| Buf::alloc(len, align).ok()).ok_or(BioError {
        op,
        offset,
        len,
        failure: Failure::NoMemory,
    })
}
