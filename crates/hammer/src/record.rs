//! What an element of a leaf points to: the data of a record, checked.

use arrayvec::ArrayVec;
use dfly_hal::Wait;

use crate::crc::{Checksum, Digest, Flavor};
use crate::error::{Error, Structure};
use crate::media::{Media, Page};
use crate::ondisk::node::Element;
use crate::ondisk::record::{InodeData, RecType};
use crate::ondisk::{BUFFER_SIZE, MAX_RECORD_DATA, Offset, Zone};
use crate::pages::Pages;

/// Pages that one record can touch.
pub(crate) const MAX_PAGES: usize = MAX_RECORD_DATA / BUFFER_SIZE + 1;

/// Where the data of a record lies, checked for what can be checked without reading it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) at: Offset,
    pub(crate) len: usize,
    crc: u32,
    structure: Structure,
}

impl Extent {
    pub(crate) fn of(e: &Element) -> Result<Self, Error> {
        let leaf = e.as_leaf();
        let at = Offset(leaf.data_offset.get());
        let rec_type = RecType(e.base.rec_type.get());
        let structure = structure_of(rec_type);
        let len = usize::try_from(leaf.data_len.get())
            .ok()
            .filter(|&n| n <= MAX_RECORD_DATA)
            .ok_or(Error::corrupt(structure, at, "record has an impossible length"))?;
        let zone_fits = match rec_type {
            RecType::DATA | RecType::DB => matches!(at.zone(), Zone::LARGE_DATA | Zone::SMALL_DATA),
            _ => at.zone() == Zone::META,
        };
        if len > 0 && !zone_fits {
            return Err(Error::corrupt(structure, at, "record lies in the wrong zone"));
        }
        if rec_type == RecType::INODE && len != size_of::<InodeData>() {
            return Err(Error::corrupt(structure, at, "inode has an impossible length"));
        }
        Ok(Self { at, len, crc: leaf.data_crc.get(), structure })
    }

    /// The buffers that it touches.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = Offset> + use<> {
        let (first, count) = (self.at.in_zone(Zone::RAW_BUFFER).buffer(), self.page_count());
        // Beyond the volume's last byte the addition fails, and reading the buffer before reports it.
        (0..count as u64).map_while(move |i| first.checked_add(i * BUFFER_SIZE as u64))
    }

    pub(crate) fn page_count(&self) -> usize {
        (self.at.in_buffer() + self.len).div_ceil(BUFFER_SIZE)
    }

    /// Its bytes within `pages`, which are those of [`Self::buffers`].
    pub(crate) fn slices<'p>(&self, pages: &'p [Page]) -> impl Iterator<Item = &'p [u8]> + use<'p> {
        let (mut skip, mut left) = (self.at.in_buffer(), self.len);
        pages.iter().map(move |page| {
            let bytes = page.bytes().get(skip..).unwrap_or_default();
            let bytes = bytes.get(..left).unwrap_or(bytes);
            skip = 0;
            left -= bytes.len();
            bytes
        })
    }

    /// Whether the data matches its checksum, and under which flavor.
    pub(crate) fn flavor(&self, rule: Checksum, pages: &[Page]) -> Option<Flavor> {
        if self.len == 0 {
            return (self.crc == 0).then_some(rule.newest());
        }
        if self.structure == Structure::Inode {
            let covered = pages.first()?.bytes().get(self.at.in_buffer()..)?.get(..InodeData::CRC_LEN)?;
            return rule.check(self.crc, covered);
        }
        rule.matching(self.crc, |flavor| match pages {
            [_] => flavor.of(self.slices(pages).next().unwrap_or_default()),
            _ => {
                let mut digest = Digest::new(flavor);
                self.slices(pages).for_each(|s| digest.update(s));
                digest.finish()
            }
        })
    }

    /// Checks the data, unless these pages were found right before.
    pub(crate) fn verify(&self, media: &Media, pages: &[Page]) -> Result<(), Error> {
        if pages.len() != self.page_count() {
            return Err(Error::OutOfRange { structure: self.structure, at: self.at });
        }
        let mark = Pages::record_mark(self.at, self.len, self.crc);
        if media.pages().record_is_verified(pages, mark) {
            return Ok(());
        }
        self.flavor(media.checksum(), pages).ok_or(Error::Checksum {
            structure: self.structure,
            at: self.at,
            stored: self.crc,
        })?;
        media.pages().set_record_verified(pages, mark);
        Ok(())
    }

    pub(crate) fn check_range(&self, media: &Media) -> Result<(), Error> {
        self.buffers().try_for_each(|b| media.buffer(b, self.structure).map(drop))
    }
}

/// A small record in memory.
pub(crate) struct Record {
    extent: Extent,
    pages: ArrayVec<Page, MAX_PAGES>,
}

impl Record {
    /// Reads and checks the data of `e`. May block.
    pub(crate) fn load(media: &Media, w: &mut dyn Wait, e: &Element) -> Result<Self, Error> {
        let record = Self::load_unchecked(media, w, e)?;
        record.extent.verify(media, &record.pages)?;
        Ok(record)
    }

    /// Reads the data of `e` without comparing checksums. May block.
    pub(crate) fn load_unchecked(media: &Media, w: &mut dyn Wait, e: &Element) -> Result<Self, Error> {
        let extent = Extent::of(e)?;
        extent.check_range(media)?;
        let mut pages = ArrayVec::new();
        media.read_pages(w, extent.buffers(), &mut pages)?;
        Ok(Self { extent, pages })
    }

    pub(crate) fn flavor(&self, media: &Media) -> Option<Flavor> {
        self.extent.flavor(media.checksum(), &self.pages)
    }

    /// The data in one piece: metadata never crosses a buffer.
    pub(crate) fn bytes(&self) -> Result<&[u8], Error> {
        let Extent { at, structure, .. } = self.extent;
        match self.pages.as_slice() {
            [] => Ok(&[]),
            [_] => Ok(self.extent.slices(&self.pages).next().unwrap_or_default()),
            _ => Err(Error::corrupt(structure, at, "record crosses a buffer")),
        }
    }

    /// The data, piece by piece.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.extent.slices(&self.pages)
    }

    /// The data as a structure that begins with `T`.
    pub(crate) fn view<T>(&self) -> Result<&T, Error>
    where
        T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
    {
        let Extent { at, structure, .. } = self.extent;
        T::ref_from_prefix(self.bytes()?)
            .map(|(view, _)| view)
            .map_err(|_| Error::corrupt(structure, at, "record is too short"))
    }

    pub(crate) fn at(&self) -> Offset {
        self.extent.at
    }
}

fn structure_of(rec_type: RecType) -> Structure {
    match rec_type {
        RecType::INODE => Structure::Inode,
        RecType::DATA | RecType::DB => Structure::Data,
        RecType::DIRENTRY => Structure::Dirent,
        RecType::FIX => Structure::Symlink,
        RecType::PFS => Structure::Pfs,
        RecType::SNAPSHOT => Structure::Snapshot,
        RecType::CONFIG => Structure::Config,
        _ => Structure::Record,
    }
}
