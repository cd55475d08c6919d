//! The contents of files: blocks, written to new places.
//!
//! A block is 16 KiB long below 1 MiB and 64 KiB from there on, and lies in one record whose key is the offset behind it.
//! Only a file of at most 8 KiB has a shorter one. What the open group wrote is changed where it is; anything older is
//! written anew.

use core::ops::Range;

use alloc::vec;
use alloc::vec::Vec;

use dfly_hal::Wait;
use dfly_vfs as vfs;
use dfly_vfs::Errno;

use super::inode::{Live, MOST_RECORDS};
use super::op::Op;
use super::space::footprint;
use crate::btree::{Cursor, Scan};
use crate::error::{Error, Structure};
use crate::ondisk::node::{Element, Tid};
use crate::ondisk::record::{ObjType, RecType};
use crate::ondisk::{BLOCK_DEMARC, LARGE_BLOCK, Offset, SMALL_BLOCK};

/// The size up to which a file is one short record.
const SHORT_FILE: u64 = 8192;

/// Bytes that one operation writes at most.
pub(super) const MOST_BYTES: u64 = 4 * LARGE_BLOCK;

/// The largest file: its last block must have a key.
const MAX_FILE: u64 = i64::MAX as u64 - LARGE_BLOCK;

/// The block that holds byte `at` of a file.
fn block_of(at: u64) -> Range<u64> {
    let len = if at < BLOCK_DEMARC { SMALL_BLOCK } else { LARGE_BLOCK };
    let start = at - at % len;
    start..start + len
}

/// The length of a block's record in a file of `size` bytes.
fn record_len(block: &Range<u64>, size: u64) -> usize {
    if block.start == 0 && size <= SHORT_FILE {
        footprint(size as usize)
    } else {
        (block.end - block.start) as usize
    }
}

/// A record of file data, and the bytes of the file that it holds.
struct Piece {
    element: Element,
    range: Range<u64>,
}

impl Piece {
    fn of(element: Element) -> Result<Self, Error> {
        let leaf = element.as_leaf();
        let at = Offset(leaf.data_offset.get());
        let wrong = Error::corrupt(Structure::Data, at, "record begins before the file does");
        let end = u64::try_from(element.base.key.get()).map_err(|_| wrong)?;
        let len = u64::try_from(leaf.data_len.get()).map_err(|_| wrong)?;
        Ok(Self { element, range: end.checked_sub(len).ok_or(wrong)?..end })
    }
}

impl Op<'_, '_> {
    /// A file that is to be written. May block.
    pub(crate) fn file(&self, w: &mut dyn Wait, id: crate::ObjectId) -> vfs::Result<Live> {
        let file = self.living(w, id)?;
        match file.obj_type() {
            ObjType::REGULAR | ObjType::DBFILE => Ok(file),
            ObjType::DIRECTORY => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// Writes as much of `data` as one operation may, at least one byte of it; returns how much. May block.
    pub(crate) fn write_file(
        &mut self,
        w: &mut dyn Wait,
        file: &Live,
        start: u64,
        data: &[u8],
    ) -> vfs::Result<usize> {
        let most = start.checked_add(data.len() as u64).filter(|end| *end <= MAX_FILE).ok_or(Errno::EFBIG)?;
        // A whole number of blocks, when there is more than fits.
        let end = most.min(block_of(start).start + MOST_BYTES);
        let old_size = file.inode.size.get();
        let size = old_size.max(end);
        let mut at = start;
        let mut rest = data;
        while at < end {
            let block = block_of(at);
            let n = (block.end.min(end) - at) as usize;
            let (now, later) = rest.split_at(n.min(rest.len()));
            self.write_block(w, file, &block, size, (at, now))?;
            (at, rest) = (at + n as u64, later);
        }
        self.lengthen_short(w, file, size, start < SMALL_BLOCK)?;
        self.set_size(w, file, size)?;
        Ok((end - start) as usize)
    }

    /// Makes a file `size` bytes long, or, where that takes more than one operation may do, shorter than it is. Returns
    /// whether it is done. May block.
    pub(crate) fn truncate(&mut self, w: &mut dyn Wait, file: &Live, size: u64) -> vfs::Result<bool> {
        if size > MAX_FILE {
            return Err(Errno::EFBIG.into());
        }
        if size >= file.inode.size.get() {
            self.lengthen_short(w, file, size, false)?;
            self.set_size(w, file, size)?;
            return Ok(true);
        }
        self.open_reserve();
        let last = block_of(size);
        let boundary = if last.start == size { size } else { last.end };
        // From the end backwards, so that at any time what is left is the beginning of the file.
        let key = file.id.misc_key(RecType::DATA, i64::MAX);
        let mut cursor = Cursor::seek(self, w, &key)?;
        let mut gone = Vec::new();
        let mut left = size;
        while let Some(e) = cursor.prev(w)?
            && e.base.key().at(Tid::ZERO) > file.id.misc_key(RecType::DATA, boundary as i64)
        {
            if !e.base.visible_at(Tid::MAX) {
                continue;
            }
            let piece = Piece::of(e)?;
            if piece.range.start < boundary {
                break;
            }
            gone.push(e);
            if gone.len() == MOST_RECORDS {
                left = piece.range.start;
                break;
            }
        }
        drop(cursor);
        for e in &gone {
            self.end(w, e, file.history())?;
        }
        if left == size && boundary != size {
            self.write_block(w, file, &last, size, (size, &[]))?;
        }
        self.set_size(w, file, left)?;
        Ok(left == size)
    }

    fn set_size(&mut self, w: &mut dyn Wait, file: &Live, size: u64) -> Result<(), Error> {
        let mut inode = file.inode;
        inode.size = size.into();
        inode.mtime = self.now_us.into();
        self.change(w, file, &inode)
    }

    /// The only record of a short file is as long as the file; it must not stay so when the file has grown. May block.
    fn lengthen_short(&mut self, w: &mut dyn Wait, file: &Live, size: u64, written: bool) -> vfs::Result<()> {
        let old_size = file.inode.size.get();
        if written || old_size > SHORT_FILE || size <= old_size {
            return Ok(());
        }
        let block = block_of(0);
        let pieces = self.pieces(w, file, &block)?;
        let len = record_len(&block, size) as u64;
        if pieces.is_empty() || pieces.iter().any(|p| p.range.end == len) {
            return Ok(());
        }
        self.write_block(w, file, &block, size, (0, &[]))
    }

    /// The live records that hold bytes of a block; none may reach out of it. May block.
    fn pieces(&self, w: &mut dyn Wait, file: &Live, block: &Range<u64>) -> Result<Vec<Piece>, Error> {
        let key = |k: u64| file.id.misc_key(RecType::DATA, i64::try_from(k).unwrap_or(i64::MAX));
        let mut scan = Scan::new(self, w, &key(block.start + 1), &key(i64::MAX as u64), Tid::MAX)?;
        let mut found = Vec::new();
        while let Some(e) = scan.next(w)? {
            let piece = Piece::of(e)?;
            if piece.range.start >= block.end {
                break;
            }
            if piece.range.start < block.start || piece.range.end > block.end {
                let at = Offset(e.as_leaf().data_offset.get());
                return Err(Error::corrupt(Structure::Data, at, "record does not lie within one block"));
            }
            found.push(piece);
        }
        Ok(found)
    }

    /// Puts bytes at an offset of a file into their block, for a file of `size` bytes: what is behind its end becomes
    /// zero. May block.
    fn write_block(
        &mut self,
        w: &mut dyn Wait,
        file: &Live,
        block: &Range<u64>,
        size: u64,
        (at, bytes): (u64, &[u8]),
    ) -> vfs::Result<()> {
        let len = record_len(block, size);
        let old = self.pieces(w, file, block)?;
        if old.is_empty() && bytes.is_empty() {
            return Ok(());
        }
        let mut content = vec![0; len];
        let within = |offset: u64| usize::try_from(offset - block.start).unwrap_or(usize::MAX);
        if bytes.len() < len {
            let valid = within(size.clamp(block.start, block.end)).min(len);
            for piece in &old {
                let data = self.data(w, &piece.element)?;
                let from = within(piece.range.start).min(valid);
                let to = within(piece.range.end).min(valid);
                if let (Some(to), Some(data)) = (content.get_mut(from..to), data.get(..to - from)) {
                    to.copy_from_slice(data);
                }
            }
        }
        let from = within(at);
        if let Some(to) = content.get_mut(from..from.saturating_add(bytes.len())) {
            to.copy_from_slice(bytes);
        }
        let end = block.start + len as u64;
        if let [piece] = old.as_slice()
            && piece.range == (block.start..end)
        {
            return Ok(self.replace(w, &piece.element, &content, file.history())?);
        }
        // Records of other lengths: all of them end. Those of the same key must, before there is another.
        for piece in &old {
            self.end(w, &piece.element, file.history())?;
        }
        let key = file.id.misc_key(RecType::DATA, i64::try_from(end).map_err(|_| Errno::EFBIG)?);
        Ok(self.put(w, &key, file.inode.obj_type, &content)?)
    }
}
