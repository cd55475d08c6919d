//! The contents of files: records, and holes between them.

use core::ops::{ControlFlow, Range};

use arrayvec::ArrayVec;
use dfly_hal::Wait;
use dfly_vfs::ReadSink;

use crate::btree::Scan;
use crate::error::{Error, Structure};
use crate::media::{BATCH, Media, Page};
use crate::object::Object;
use crate::ondisk::BUFFER_SIZE;
use crate::ondisk::node::Element;
use crate::ondisk::record::RecType;
use crate::record::Extent;

static ZEROS: [u8; BUFFER_SIZE] = [0; BUFFER_SIZE];

/// A record of file data: which bytes of the file it holds, and where they lie.
#[derive(Clone, Copy)]
struct Piece {
    start: u64,
    end: u64,
    extent: Extent,
}

impl Piece {
    /// The key of a data record is the file offset behind its last byte.
    fn of(e: &Element) -> Result<Self, Error> {
        let extent = Extent::of(e)?;
        let wrong = Error::corrupt(Structure::Data, extent.at, "record begins before the file does");
        let end = u64::try_from(e.base.key.get()).map_err(|_| wrong)?;
        let start = end.checked_sub(extent.len as u64).ok_or(wrong)?;
        Ok(Self { start, end, extent })
    }
}

/// The records of a file that hold bytes of a range, in order.
struct Pieces<'m> {
    scan: Scan<'m>,
    range: Range<u64>,
}

impl<'m> Pieces<'m> {
    fn new(media: &'m Media, w: &mut dyn Wait, file: &Object, range: Range<u64>) -> Result<Self, Error> {
        // The record that holds a byte has a larger key than its offset.
        let first = i64::try_from(range.start).map_or(i64::MAX, |s| s.saturating_add(1));
        let key = |k| file.id.misc_key(RecType::DATA, k);
        Ok(Self { scan: Scan::new(media, w, &key(first), &key(i64::MAX), file.id.view.tid())?, range })
    }

    fn next(&mut self, w: &mut dyn Wait) -> Result<Option<Piece>, Error> {
        while let Some(e) = self.scan.next(w)? {
            let piece = Piece::of(&e)?;
            if piece.start >= self.range.end {
                break;
            }
            if piece.start < piece.end {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }
}

/// Hands bytes `range` of `file` to `out`, holes as zeros; the range lies within the file. Returns how many were handed
/// out. May block.
///
/// Records are read several at a time, and each is checked before its first byte is handed out.
pub(crate) fn read(
    media: &Media,
    w: &mut dyn Wait,
    file: &Object,
    range: Range<u64>,
    out: &mut ReadSink<'_>,
) -> Result<u64, Error> {
    let mut pieces = Pieces::new(media, w, file, range.clone())?;
    let mut sink = Sink { position: range.start, end: range.end, out, stopped: false };
    let mut left_over = None;
    while sink.wants_more() {
        let mut batch: ArrayVec<Piece, BATCH> = ArrayVec::new();
        let mut page_count = 0;
        while let Some(piece) = match left_over.take() {
            Some(piece) => Some(piece),
            None => pieces.next(w)?,
        } {
            page_count += piece.extent.page_count();
            if page_count > BATCH || batch.is_full() {
                left_over = Some(piece);
                break;
            }
            piece.extent.check_range(media)?;
            batch.push(piece);
        }
        if batch.is_empty() {
            break;
        }
        let mut pages: ArrayVec<Page, BATCH> = ArrayVec::new();
        media.read_pages(w, batch.iter().flat_map(|p| p.extent.buffers()), &mut pages)?;
        let mut rest = pages.as_slice();
        for piece in &batch {
            let (own, behind) = rest
                .split_at_checked(piece.extent.page_count())
                .ok_or(Error::OutOfRange { structure: Structure::Data, at: piece.extent.at })?;
            rest = behind;
            piece.extent.verify(media, own)?;
            sink.zeros_until(piece.start);
            let mut at = piece.start;
            for bytes in piece.extent.slices(own) {
                sink.bytes(at, bytes);
                at += bytes.len() as u64;
            }
        }
    }
    sink.zeros_until(range.end);
    Ok(sink.position - range.start)
}

/// The next stretch of the file at or behind `offset` that records hold, cut to the file. May block.
pub(crate) fn next_data(
    media: &Media,
    w: &mut dyn Wait,
    file: &Object,
    offset: u64,
) -> Result<Option<Range<u64>>, Error> {
    let size = file.inode.size.get();
    if offset >= size {
        return Ok(None);
    }
    let mut pieces = Pieces::new(media, w, file, offset..size)?;
    let Some(first) = pieces.next(w)? else { return Ok(None) };
    let mut data = first.start.max(offset)..first.end;
    // Bounded: a caller who wants more asks again.
    for _ in 0..BATCH {
        match pieces.next(w)? {
            Some(piece) if piece.start <= data.end => data.end = data.end.max(piece.end),
            _ => break,
        }
    }
    data.end = data.end.min(size);
    Ok(Some(data))
}

/// Where a read stands.
struct Sink<'a, 'o> {
    position: u64,
    end: u64,
    out: &'a mut ReadSink<'o>,
    stopped: bool,
}

impl Sink<'_, '_> {
    fn wants_more(&self) -> bool {
        !self.stopped && self.position < self.end
    }

    fn hand_out(&mut self, bytes: &[u8]) {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let bytes = bytes.get(..left).unwrap_or(bytes);
        if !self.stopped && !bytes.is_empty() {
            self.position += bytes.len() as u64;
            self.stopped = matches!((self.out)(bytes), ControlFlow::Break(()));
        }
    }

    /// The bytes that lie at `at` in the file, as far as they are still wanted.
    fn bytes(&mut self, at: u64, bytes: &[u8]) {
        let skip = usize::try_from(self.position.saturating_sub(at)).unwrap_or(usize::MAX);
        self.hand_out(bytes.get(skip..).unwrap_or_default());
    }

    fn zeros_until(&mut self, until: u64) {
        let until = until.min(self.end);
        while !self.stopped && self.position < until {
            let n = usize::try_from(until - self.position).unwrap_or(usize::MAX).min(ZEROS.len());
            self.hand_out(ZEROS.get(..n).unwrap_or_default());
        }
    }
}

/// The target of a symlink, in pieces; `None` if it is lost: a long one is not made durable together with its inode, so
/// that a crash can part them. May block.
pub(crate) fn readlink(
    media: &Media,
    w: &mut dyn Wait,
    link: &Object,
    mut out: impl FnMut(&[u8]),
) -> Result<Option<()>, Error> {
    use crate::ondisk::record::{FIX_KEY_SYMLINK, SYMLINK_INLINE};
    let size = link.inode.size.get();
    if let Some(target) = usize::try_from(size).ok().and_then(|n| link.inode.symlink.get(..n))
        && size <= SYMLINK_INLINE as u64
    {
        out(target);
        return Ok(Some(()));
    }
    let key = link.id.misc_key(RecType::FIX, FIX_KEY_SYMLINK);
    let Some(e) = crate::btree::lookup(media, w, &key, link.id.view.tid())? else { return Ok(None) };
    crate::record::Record::load(media, w, &e)?.slices().for_each(out);
    Ok(Some(()))
}
