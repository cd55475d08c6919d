//! The freemap: who owns which big-block, and how full it is.

use dfly_hal::Wait;
use zerocopy::FromBytes;

use crate::error::{Error, Structure};
use crate::media::Media;
use crate::ondisk::freemap::{Layer1, Layer2};
use crate::ondisk::volume::BlockmapEntry;
use crate::ondisk::{BIG_BLOCK_SIZE, Offset, Zone};

/// Index of the freemap in the blockmap.
const FREEMAP_INDEX: usize = 4;

/// Where the layer-1 table lies.
pub(crate) fn layer1_table(media: &Media) -> Offset {
    let map = media.header().vol0_blockmap.get(FREEMAP_INDEX);
    Offset(map.map_or(0, |m: &BlockmapEntry| m.phys_offset.get()))
}

/// The entry for the 4 TiB that hold `at`, checked; `None` where no space lies behind it. May block.
pub(crate) fn layer1(media: &Media, w: &mut dyn Wait, at: Offset) -> Result<Option<Layer1>, Error> {
    let table = layer1_table(media);
    let entry: Layer1 = load(media, w, table, Layer1::position(at))?;
    check(media, table, entry.layer1_crc.get(), &entry, Layer1::CRC_LEN)?;
    Ok((entry.phys_offset.get() != Offset::UNAVAILABLE.0).then_some(entry))
}

/// The entry for the big-block that holds `at`, checked; `None` where no space lies behind it. May block.
pub(crate) fn layer2(media: &Media, w: &mut dyn Wait, at: Offset) -> Result<Option<Layer2>, Error> {
    let Some(layer1) = layer1(media, w, at)? else { return Ok(None) };
    let table = Offset(layer1.phys_offset.get());
    let entry: Layer2 = load(media, w, table, Layer2::position(at))?;
    check(media, table, entry.entry_crc.get(), &entry, Layer2::CRC_LEN)?;
    Ok(Some(entry))
}

fn load<T: FromBytes>(media: &Media, w: &mut dyn Wait, table: Offset, position: u64) -> Result<T, Error> {
    let outside = Error::OutOfRange { structure: Structure::Freemap, at: table };
    if table.zone() != Zone::RAW_BUFFER || !table.0.is_multiple_of(BIG_BLOCK_SIZE) {
        return Err(outside);
    }
    let at = table.checked_add(position).ok_or(outside)?;
    let page = media.page(w, at, Structure::Freemap)?;
    let bytes = page.bytes().get(at.in_buffer()..).unwrap_or_default();
    T::read_from_prefix(bytes).map(|(entry, _)| entry).map_err(|_| outside)
}

fn check<T: zerocopy::IntoBytes + zerocopy::Immutable>(
    media: &Media,
    at: Offset,
    stored: u32,
    entry: &T,
    covered: usize,
) -> Result<(), Error> {
    let bytes = entry.as_bytes().get(..covered).unwrap_or_default();
    match media.checksum().check(stored, bytes) {
        Some(_) => Ok(()),
        None => Err(Error::Checksum { structure: Structure::Freemap, at, stored }),
    }
}
