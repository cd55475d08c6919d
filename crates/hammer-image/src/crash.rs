//! What a crash in the middle of a flush leaves behind.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use dfly_hammer::ondisk::freemap::{Layer1, Layer2};
use dfly_hammer::ondisk::{BIG_BLOCK_SIZE, Offset, Zone};

use crate::Result;
use crate::fifo::Hint;
use crate::image::{CHUNK, Image};

/// Header fields that a flush changes under UNDO: all from the block counts on, ...
const HEADER_LOGGED: Range<usize> = 200..1928;
/// ... but the counter of transactions, which never goes back, ...
const HEADER_NEXT_TID: Range<usize> = 248..256;
/// ... and the FIFO's own borders.
const HEADER_FIFO: Range<usize> = 384..424;
/// Differences closer together than this are logged as one.
const NEAR: usize = 64;

/// The image that a crash leaves between `before` and `after`, two states of one file system whose FIFO is empty.
///
/// Its FIFO holds the old bytes of everything that `after` changes in space that `before` uses, so that recovery finds
/// `before`. Of the changed buffers those have reached the medium for which `reached` answers true; it gets the volume
/// and the device byte.
pub fn crash(before: &Image, after: &Image, mut reached: impl FnMut(usize, u64) -> bool) -> Result<Image> {
    let mut image = before.clone();
    let changed = changed_buffers(before, after)?;
    let mut journal = image.journal()?;
    journal.begin_here();
    for &(volume, at) in &changed {
        let (old, new) = (before.buffer(volume, at)?, after.buffer(volume, at)?);
        for run in differences(&old, &new) {
            for run in before.logged(volume, at, run)? {
                journal.undo(before.address(volume, at + run.start as u64)?, &old[run])?;
            }
        }
    }
    journal.finish(Hint::Exact)?;

    let mut header = image.header(0)?;
    let fifo = header.vol0_blockmap[3];
    for &(volume, at) in &changed {
        if reached(volume, at) {
            image.volumes[volume].write_at(at, &after.buffer(volume, at)?)?;
            if (volume, at) == (0, 0) {
                header = after.header(0)?;
                header.vol0_blockmap[3] = fifo;
            }
        }
    }
    header.vol0_next_tid = after.header(0)?.vol0_next_tid;
    image.put_header(0, &header)?;
    Ok(image)
}

/// Buffers in which two images differ, the FIFO's left out.
fn changed_buffers(before: &Image, after: &Image) -> Result<BTreeSet<(usize, u64)>> {
    let fifo: Vec<u64> = before
        .fifo_blocks()?
        .into_iter()
        .map(|b| before.locate(b).map(|(_, at)| at))
        .collect::<Result<_>>()?;
    let in_fifo = |volume, at| volume == 0 && fifo.iter().any(|&b| (b..b + BIG_BLOCK_SIZE).contains(&at));
    let mut changed = BTreeSet::new();
    for (volume, (old, new)) in before.volumes.iter().zip(&after.volumes).enumerate() {
        for (at, _) in old.chunks().chain(new.chunks()) {
            let same = match (old.chunk(at), new.chunk(at)) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
                _ => false,
            };
            if !same && !in_fifo(volume, at) {
                changed.insert((volume, at));
            }
        }
    }
    Ok(changed)
}

/// Where two buffers differ, in units of 8 bytes.
fn differences(old: &[u8; CHUNK], new: &[u8; CHUNK]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for at in (0..CHUNK).step_by(8).filter(|&at| old[at..at + 8] != new[at..at + 8]) {
        match runs.last_mut() {
            Some(run) if at < run.end + NEAR => run.end = at + 8,
            _ => runs.push(at..at + 8),
        }
    }
    runs
}

impl Image {
    fn buffer(&self, volume: usize, at: u64) -> Result<[u8; CHUNK]> {
        let mut bytes = [0; CHUNK];
        self.volumes[volume].read_at(at, &mut bytes)?;
        Ok(bytes)
    }

    /// The parts of a run of changed bytes that need UNDO: what is in use.
    fn logged(&self, volume: usize, at: u64, run: Range<usize>) -> Result<Vec<Range<usize>>> {
        if at == 0 {
            let fields = [
                HEADER_LOGGED.start..HEADER_NEXT_TID.start,
                HEADER_NEXT_TID.end..HEADER_FIFO.start,
                HEADER_FIFO.end..HEADER_LOGGED.end,
            ];
            let parts = fields.map(|field| run.start.max(field.start)..run.end.min(field.end));
            return Ok(parts.into_iter().filter(|part| !part.is_empty()).collect());
        }
        let owner = self.layer2(self.address(volume, at)?)?;
        let start = self.address(volume, at)?.in_big_block();
        let used = u64::from(owner.append_off.get()).saturating_sub(start).min(CHUNK as u64) as usize;
        let part = run.start..run.end.min(used);
        Ok(if owner.zone == 0 || part.is_empty() { Vec::new() } else { vec![part] })
    }

    /// The freemap's entry for a big-block.
    pub fn layer2(&self, at: Offset) -> Result<Layer2> {
        self.view(self.layer2_place(at)?)
    }

    /// Where that entry lies.
    pub(crate) fn layer2_place(&self, at: Offset) -> Result<Offset> {
        let table = Offset(self.header(0)?.vol0_blockmap[4].phys_offset.get());
        let layer1: Layer1 = self.view(Offset(table.0 + Layer1::position(at)))?;
        Ok(Offset(layer1.phys_offset.get().wrapping_add(Layer2::position(at))))
    }

    /// The address by which UNDO names a byte of a volume.
    pub(crate) fn address(&self, volume: usize, at: u64) -> Result<Offset> {
        let begin = self.header(volume)?.vol_buf_beg.get() as u64;
        Ok(match at.checked_sub(begin) {
            Some(byte) => Offset::new(Zone::RAW_BUFFER, volume as u8, byte),
            None => Offset::new(Zone::RAW_VOLUME, volume as u8, at),
        })
    }
}
